"""Runs parts on the NPU of a board, with rknn-toolkit-lite2. Not verified: no board was available."""

from __future__ import annotations

import importlib.util
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError
from .exported import ExportedRknn
from .part_chain import Arrays


def has_npu_runtime() -> bool:
    """Returns whether rknn-toolkit-lite2 is installed."""
    return importlib.util.find_spec("rknnlite") is not None


class NpuBackend:
    """Runs the NPU parts of an artifact by name. A part is loaded when it is first run, and stays loaded.

    Args:
        exported: The artifact.

    Attributes:
        engine: Name of the runtime.
        load_seconds: Time spent on loading parts so far.
    """

    engine = "rknn-toolkit-lite2"

    def __init__(self, exported: ExportedRknn) -> None:
        self._exported = exported
        self._loaded: dict[str, Any] = {}
        self.load_seconds = 0.0

    def __call__(self, name: str, inputs: Arrays) -> NDArray[np.float32]:
        """Returns the output of a part; its inputs are cast to float32."""
        if name not in self._loaded:
            started = perf_counter()
            self._loaded[name] = self._load(name)
            self.load_seconds += perf_counter() - started
        arrays = [np.asarray(array, np.float32) for array in inputs.values()]
        output: NDArray[Any] = self._loaded[name].inference(inputs=arrays, data_format=["nchw"] * len(arrays))[0]
        return output.astype(np.float32, copy=False)

    def _load(self, name: str) -> Any:
        from rknnlite.api import RKNNLite

        model = RKNNLite()
        file = self._exported.rknn_file(name)
        for call, code in (("load_rknn", model.load_rknn(str(file))), ("init_runtime", model.init_runtime())):
            if code != 0:
                raise UserError(f"Cannot run {file}: {call} returned {code}. Run check_board.py beside it.")
        return model
