"""What a library finds that asks for the telemetry of OpenVINO."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType

import pytest

from edgepress.common.telemetry import OPENVINO_TELEMETRY, openvino_telemetry_disabled


def test_the_package_cannot_be_imported_inside_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, OPENVINO_TELEMETRY, raising=False)
    with openvino_telemetry_disabled(), pytest.raises(ModuleNotFoundError):
        import_module(OPENVINO_TELEMETRY)
    assert OPENVINO_TELEMETRY not in sys.modules


def test_a_package_that_was_imported_before_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(OPENVINO_TELEMETRY)
    monkeypatch.setitem(sys.modules, OPENVINO_TELEMETRY, module)
    with openvino_telemetry_disabled():
        assert import_module(OPENVINO_TELEMETRY) is module
