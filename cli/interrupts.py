"""Interruptions: Ctrl-C, and signals that ask a process to end, all of which let it clean up first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

DEFAULT_HANDLERS: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
if hasattr(signal, "SIGHUP"):  # the terminal was closed
    DEFAULT_HANDLERS[signal.SIGHUP] = signal.SIG_DFL


@contextmanager
def record_interrupts() -> Iterator[list[int]]:
    """Makes a KeyboardInterrupt of signals, so that what was begun is cleaned up, and records them.

    C libraries may make another error of the KeyboardInterrupt. Signals that are handled already, or ignored as `nohup`
    does with SIGHUP, are left alone. Closing a terminal or stopping a service may send several: once the first was
    heard, only Ctrl-C interrupts the clean-up.

    Yields:
        The signals that arrived so far.
    """
    signals: list[int] = []

    def handler(number: int, _: object) -> None:
        signals.append(number)
        if len(signals) == 1 or number == signal.SIGINT:
            raise KeyboardInterrupt

    is_main = threading.current_thread() is threading.main_thread()
    replaced = {
        number: default
        for number, default in DEFAULT_HANDLERS.items()
        if is_main and signal.getsignal(number) is default
    }
    for number in replaced:
        signal.signal(number, handler)
    try:
        yield signals
    finally:
        for number, default in replaced.items():
            signal.signal(number, default)
