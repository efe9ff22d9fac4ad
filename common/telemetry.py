"""Imports libraries without what they would send and write about it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

OPENVINO_TELEMETRY = "openvino_telemetry"


@contextmanager
def openvino_telemetry_disabled() -> Iterator[None]:
    """Lets openvino be imported as if the package that reports the import were not installed.

    It would also write an identifier into the home folder (findings/openvino_import_writes_a_client_id.sh).
    """
    if OPENVINO_TELEMETRY in sys.modules:
        yield
        return
    modules: dict[str, Any] = sys.modules
    modules[OPENVINO_TELEMETRY] = None
    try:
        yield
    finally:
        del modules[OPENVINO_TELEMETRY]
