from __future__ import annotations

import pytest

from edgepress.common.progress import no_progress, progress_bars


def test_each_stage_has_a_bar_on_the_error_stream(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bars() as progress:
        progress("calibrating", 0, 4)
        progress("solving", 3, 4)  # resumed
        progress("calibrating", 4, 4)
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert [line.split()[0] for line in lines[-2:]] == ["calibrating", "solving"]
    assert "100%" in lines[-2]
    assert "75%" in lines[-1]


def test_a_stage_that_comes_again_with_another_total_ends_full(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bars() as progress:
        progress("checking files", 5, 5)
        progress("checking files", 4, 4)
    assert "100%" in capsys.readouterr().err


def test_without_a_stage_nothing_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bars():
        pass
    with pytest.raises(ValueError, match="early"), progress_bars():
        raise ValueError("early")
    no_progress("calibrating", 1, 2)
    assert capsys.readouterr() == ("", "")


def test_bars_end_where_an_error_ends_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    """The cursor, which bars hide on a terminal, and the line below them are the terminal's again."""

    def work() -> None:
        with progress_bars() as progress:
            progress("solving", 1, 4)
            raise ValueError("late")

    with pytest.raises(ValueError, match="late"):
        work()
    assert capsys.readouterr().err.endswith("\n")
