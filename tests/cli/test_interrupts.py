"""Signals: all that ask a process to end let it clean up first."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from helpers.failing_command import make_root

USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}


@pytest.fixture(params=USUAL, ids=lambda number: number.name)
def number(request: pytest.FixtureRequest) -> Iterator[int]:
    """A signal that is handled as it usually is when a process starts."""
    before = signal.signal(request.param, USUAL[request.param])
    yield request.param
    signal.signal(request.param, before)


def test_an_interruption_that_a_library_makes_another_error_of_is_still_one(number: int) -> None:
    def work() -> None:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as error:
            raise ValueError("no shape") from error

    result = CliRunner().invoke(make_root(work), ["work"])
    assert result.exit_code == 128 + number
    assert result.stderr.startswith("Error: Interrupted")
    assert signal.getsignal(number) is USUAL[number]  # type: ignore[index]


def test_a_second_signal_does_not_interrupt_the_clean_up(tmp_path: Path) -> None:
    """Closing a terminal may send SIGHUP and SIGTERM."""
    cleaned = tmp_path / "cleaned"

    def work() -> None:
        try:
            signal.raise_signal(signal.SIGHUP)
            time.sleep(0)
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleaned.touch()

    before: dict[int, Any] = {number: signal.signal(number, handler) for number, handler in USUAL.items()}
    try:
        assert CliRunner().invoke(make_root(work), ["work"]).exit_code == 128 + signal.SIGHUP
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert cleaned.exists()


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """`nohup` ignores SIGHUP so that work goes on."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert CliRunner().invoke(make_root(lambda: signal.raise_signal(signal.SIGHUP)), ["work"]).exit_code == 0
    finally:
        signal.signal(signal.SIGHUP, before)
