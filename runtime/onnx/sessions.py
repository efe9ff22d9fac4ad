"""ONNX Runtime sessions by graph name, loaded when they are first asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as faults

from ...common import memory
from ...common.errors import UserError

CPU_PROVIDERS = ("CPUExecutionProvider",)
FLOAT_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
ORT_ERRORS = (
    faults.Fail, faults.InvalidGraph, faults.InvalidProtobuf, faults.InvalidArgument, faults.NoSuchFile,
    faults.NotImplemented, faults.RuntimeException,
)  # fmt: skip
OUT_OF_MEMORY_MARKERS = ("bad_alloc", "Failed to allocate memory")  # in ONNX Runtime's words


class SessionPool:
    """Runs graphs by name.

    Args:
        files: of the graphs, by name.
        keep: whether a graph stays in memory when another one is run; otherwise it goes before the other is loaded.
        providers: of ONNX Runtime, in the order in which they may take a node.
        accuracy_level: of products of dequantized 4-bit weights; 0 multiplies in floats, 4 in 8-bit integers.

    loading: seconds that loading graphs has taken so far.

    Raises:
        UserError: this ONNX Runtime has no such provider.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        keep_loaded: bool = True,
        providers: Sequence[str] = CPU_PROVIDERS,
        accuracy_level: int = 0,
    ) -> None:
        self._files, self._keep, self._providers, self._accuracy_level = (
            files,
            keep_loaded,
            list(providers),
            accuracy_level,
        )
        self._loaded: dict[str, Any] = {}
        self.load_seconds = 0.0
        there = onnxruntime.get_available_providers()
        absent = [name for name in providers if name not in there]
        if absent:
            raise UserError(f"This ONNX Runtime has no {absent[0]}; it has {', '.join(there)}.")

    def __call__(self, name: str, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The first output of a graph; floats are cast to what the graph computes in, and back to float32.

        Raises:
            UserError: the artifact has no such graph, or ONNX Runtime cannot load it or run it.
        """
        return self.run(name, inputs)[0]

    def run(self, name: str, inputs: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """All outputs of a graph, as `__call__` gives the first."""
        session = self._session(name)
        types = {port.name: port.type for port in session.get_inputs()}
        given = {
            key: value.astype(FLOAT_DTYPES.get(types[key], value.dtype), copy=False) for key, value in inputs.items()
        }
        try:
            found = session.run(None, given)
        except ORT_ERRORS as error:
            raise _to_user_error(f"{self._files[name]} cannot be run", error) from error
        return [output.astype(np.float32, copy=False) for output in found]

    def loaded_graphs(self) -> tuple[str, ...]:
        """The graphs that are in memory now."""
        return tuple(self._loaded)

    @property
    def engine(self) -> str:
        """Which ONNX Runtime this is, and on what the graphs in memory run, which may be less than was asked for."""
        there = dict.fromkeys(name for session in self._loaded.values() for name in session.get_providers())
        return f"ONNX Runtime {onnxruntime.__version__}, {', '.join(there)}"

    def _session(self, name: str) -> Any:
        if name not in self._loaded:
            began = perf_counter()
            if not self._keep:
                self._loaded.clear()
                memory.malloc_trim()
            self._loaded[name] = self._open(name)
            self.load_seconds += perf_counter() - began
        return self._loaded[name]

    def _open(self, name: str) -> Any:
        if name not in self._files:
            raise UserError(f"The artifact has no graph {name!r}, only {', '.join(self._files)}; export it again.")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised, and need not be logged as well
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", str(self._accuracy_level))
        try:
            return onnxruntime.InferenceSession(self._files[name], options, providers=self._providers)
        except ORT_ERRORS as error:
            raise _to_user_error(f"{self._files[name]} cannot be loaded", error) from error


def _to_user_error(what: str, error: Exception) -> UserError:
    """A fault of ONNX Runtime's in a sentence; that memory is short is none of the file's."""
    reason = str(error).splitlines()[0]
    if any(words in reason for words in OUT_OF_MEMORY_MARKERS):
        return UserError(f"{what}, as there is too little memory; give a smaller --size, or --tile.")
    return UserError(f"{what} ({reason}); export the artifact again.")
