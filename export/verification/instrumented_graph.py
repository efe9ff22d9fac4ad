"""Runs a graph that was given further outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from ...runtime.onnx.sessions import create_session


def run_instrumented(model: ir.Model, file: Path, outputs: Sequence[str], inputs: Mapping[str, Any]) -> list[Any]:
    """Runs a changed graph from a temporary copy beside its file, where its weights are.

    Args:
        model: The graph.
        file: The file that it was loaded from.
        outputs: Names of the outputs to compute.
        inputs: Arrays by port name.
    """
    copy = file.with_suffix(".instrumented.onnx")
    ir.save(model, copy)
    try:
        results: list[Any] = create_session(copy).run(outputs, inputs)
    finally:
        copy.unlink()
    return results
