"""Runs parts on the NPU of a board, with rknn-toolkit-lite2. Not verified: no board was available."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError
from .exported import ExportedRknn
from .part_chain import Arrays

DEVICE_TREE = Path("/proc/device-tree/compatible")  # where rknn-toolkit-lite2 reads which chip it runs on
LIBRARY_FOLDERS = (Path("/usr/lib"), Path("/usr/lib64"), Path("/usr/lib/aarch64-linux-gnu"))
LIBRARY = "librknnrt.so"
RKNN_MAGIC = b"RKNN"  # what the files begin with


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
        """Returns the output of a part; its inputs are cast to float32.

        Raises:
            UserError: The part cannot be loaded.
        """
        if name not in self._loaded:
            started = perf_counter()
            self._loaded[name] = self._load(name)
            self.load_seconds += perf_counter() - started
        arrays = [np.asarray(array, np.float32) for array in inputs.values()]
        output: NDArray[Any] = self._loaded[name].inference(inputs=arrays, data_format=["nchw"] * len(arrays))[0]
        return output.astype(np.float32, copy=False)

    def _load(self, name: str) -> Any:
        from rknnlite.api import RKNNLite

        file = self._exported.rknn_file(name)
        _require_loadable(file)
        model = RKNNLite()
        call, code = "load_rknn", model.load_rknn(str(file))
        if code == 0:
            call, code = "init_runtime", model.init_runtime()
        if code != 0:
            model.release()
            raise UserError(f"Cannot run {file}: {_explain_failure(call, code)}")
        return model


def _require_loadable(file: Path) -> None:
    """Checks what rknn-toolkit-lite2 does not say: its load_rknn accepts any file, and init_runtime gives no reason."""
    if not DEVICE_TREE.exists():
        raise UserError(
            f"Cannot run {file}: this is no Rockchip board, because {DEVICE_TREE} does not exist. Run it on the board, "
            "or uninstall rknn-toolkit-lite2 to use the simulator of rknn-toolkit2."
        )
    with file.open("rb") as stream:
        if stream.read(len(RKNN_MAGIC)) != RKNN_MAGIC:
            raise UserError(f"{file} is corrupt: it is no RKNN model. Copy it again, or export the artifact again.")


def _explain_failure(call: str, code: int) -> str:
    """Why rknn-toolkit-lite2 could not load a part, as far as that can be known, and what to do."""
    if not any((folder / LIBRARY).exists() for folder in LIBRARY_FOLDERS):
        return f"{LIBRARY} is missing in {LIBRARY_FOLDERS[0]}. Install the runtime of rknn-toolkit2 on the board."
    return f"{call} returned {code}. Run check_board.py beside it."
