"""The benchmark of the int4 kernel: its break-even points, and that it runs."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from edgepress.benchmarks.quantization import kernels
from edgepress.benchmarks.quantization.kernels import Timing, find_crossover

SHAPE = (64, 128)


def make_timings(setup: float, steep: float, rows: tuple[int, ...] = kernels.ROWS) -> list[Timing]:
    """The int4 kernel costs `steep` per row; dequantizing costs `setup`, and then 1 per row."""
    return [Timing(SHAPE, number, number, setup + number, steep * number) for number in rows]


@pytest.mark.slow
@given(at=st.floats(2, 1000), steep=st.floats(1.5, 50))
def test_the_crossover_of_straight_lines_is_exact(at: float, steep: float) -> None:
    assert find_crossover(make_timings((steep - 1) * at, steep)) == pytest.approx(at)


def test_lines_that_do_not_cross_have_no_crossover() -> None:
    assert find_crossover(make_timings(10_000, 2)) is None
    assert find_crossover(make_timings(0.1, 2)) is None


def test_missing_measurements_are_left_out() -> None:
    timings = [Timing(SHAPE, 1, 1, 3, 2), Timing(SHAPE, 16, 1, 3, None), Timing(SHAPE, 64, 1, 3, 4)]
    assert find_crossover(timings) == pytest.approx(1 + 63 / 2)
    assert kernels.render_row(timings[1]) == ["64 x 128", "16", "1.00", "", "3.00"]


def test_functions_are_interleaved_and_the_warm_up_does_not_count() -> None:
    runs: list[str] = []
    times = kernels.interleave([lambda: runs.append("a"), lambda: runs.append("b")], repeats=2)
    assert "".join(runs) == "ababab"
    assert len(times) == 2


@pytest.mark.parametrize("print_only", [True, False])
def test_it_measures_and_writes_a_section(print_only: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sections: list[tuple[str, str, str]] = []
    monkeypatch.setattr(kernels, "write_section", lambda *section: sections.append(section))
    monkeypatch.setattr(kernels, "SHAPES", (SHAPE,))
    monkeypatch.setattr(kernels, "ROWS", (1, 4))
    threads, gradients = torch.get_num_threads(), torch.is_grad_enabled()
    try:
        result = CliRunner().invoke(kernels.main, ["--repeats", "1", *(["--print"] if print_only else [])])
    finally:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(gradients)
    assert result.exit_code == 0, result.output
    assert result.output.count("| 64 x 128 | 4 |") == 2  # bfloat16 and float32
    assert [section[:2] for section in sections] == ([] if print_only else [("kernels", "make bench-kernels")])
