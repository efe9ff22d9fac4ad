"""The benchmark of products: what it concludes from timings, and that it runs."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from edgepress.benchmarks.quantization import kernels
from edgepress.benchmarks.quantization.kernels import Timing, find_crossover

SHAPE = (64, 128)


def lines(setup: float, steep: float, rows: tuple[int, ...] = kernels.ROWS) -> list[Timing]:
    """The int4 kernel costs `steep` a row; dequantization costs `setup` and then 1 a row."""
    return [Timing(SHAPE, number, number, setup + number, steep * number) for number in rows]


@given(at=st.floats(2, 1000), steep=st.floats(1.5, 50))
def test_straight_lines_cross_where_they_do(at: float, steep: float) -> None:
    assert find_crossover(lines((steep - 1) * at, steep)) == pytest.approx(at)


def test_where_nothing_crosses_there_is_no_crossing() -> None:
    assert find_crossover(lines(10_000, 2)) is None
    assert find_crossover(lines(0.1, 2)) is None


def test_what_was_not_measured_is_left_out() -> None:
    timings = [Timing(SHAPE, 1, 1, 3, 2), Timing(SHAPE, 16, 1, 3, None), Timing(SHAPE, 64, 1, 3, 4)]
    assert find_crossover(timings) == pytest.approx(1 + 63 / 2)
    assert kernels.render_row(timings[1]) == ["64 x 128", "16", "1.00", "", "3.00"]


def test_everything_is_run_in_turns_and_the_first_runs_do_not_count() -> None:
    runs: list[str] = []
    times = kernels.interleave([lambda: runs.append("a"), lambda: runs.append("b")], repeats=2)
    assert "".join(runs) == "ababab"
    assert len(times) == 2


@pytest.mark.parametrize("only_print", [True, False])
def test_it_measures_and_writes_a_section(only_print: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sections: list[tuple[str, str, str]] = []
    monkeypatch.setattr(kernels, "write_section", lambda *section: sections.append(section))
    monkeypatch.setattr(kernels, "SHAPES", (SHAPE,))
    monkeypatch.setattr(kernels, "ROWS", (1, 4))
    threads, gradients = torch.get_num_threads(), torch.is_grad_enabled()
    try:
        done = CliRunner().invoke(kernels.main, ["--repeats", "1", *(["--print"] if only_print else [])])
    finally:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(gradients)
    assert done.exit_code == 0, done.output
    assert done.output.count("| 64 x 128 | 4 |") == 2  # bfloat16 and float32
    assert [section[:2] for section in sections] == ([] if only_print else [("kernels", "make bench-kernels")])
