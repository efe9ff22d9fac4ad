"""ONNX Runtime sessions by graph name, loaded on first use."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from ...common.cpu_cores import run_on_cores
from ...common.cpu_features import read_cpu_features
from ...common.errors import UserError
from ...common.memory import malloc_trim
from ...storage.pipeline_config import SessionOptionsConfig
from ...storage.snapshot import read_file_state
from ..thread_settings import ANY_THREADS, ThreadSettings

PROVIDER_SUFFIX = "ExecutionProvider"
CPU_PROVIDERS = ("CPUExecutionProvider",)
AUTO = "auto"
PREFERRED_PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider", *CPU_PROVIDERS)  # that `auto` chooses from
ACCURACY_LEVEL_ENTRY = "session.qdq_matmulnbits_accuracy_level"  # of products with weights from DequantizeLinear
EXACT_INT8_ENTRY = "session.x64quantprecision"
NO_KLEIDIAI_ENTRY = "mlas.disable_kleidiai"
STOP_SPINNING_ENTRY = "session.force_spinning_stop"
FLOAT_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
ORT_ERRORS = (
    ort_state.Fail, ort_state.InvalidGraph, ort_state.InvalidProtobuf, ort_state.InvalidArgument,
    ort_state.NoSuchFile, ort_state.NotImplemented, ort_state.RuntimeException,
)  # fmt: skip
logger = logging.getLogger(__name__)
OUT_OF_MEMORY_MESSAGES = ("bad_alloc", "Failed to allocate memory")  # parts of ONNX Runtime's messages


class SessionPool:
    """Runs graphs by name.

    Args:
        files: Files of the graphs, by name.
        keep_loaded: Whether graphs stay in memory. Otherwise at most one is in memory: it is released before the next
            one is loaded.
        providers: Execution providers of ONNX Runtime in order of preference, as `resolve_providers` reads them.
        accuracy_level: `accuracy_level` of MatMulNBits: 0 multiplies in floats, 4 in 8-bit integers.
        linked_weights: Weight files that are links out of the graphs' folder, by the name that graphs call them by.
        threads: How graphs run on the CPU.
        by_block: Whether products of symmetric INT4 weights round activations by block on every processor, as exports
            are checked; on arm64 KleidiAI would round them by row.

    Attributes:
        load_seconds: Time spent loading graphs so far, in seconds.

    Raises:
        UserError: This ONNX Runtime lacks one of the providers.
    """

    def __init__(
        self,
        files: Mapping[str, Path],
        keep_loaded: bool = True,
        providers: Sequence[str] = CPU_PROVIDERS,
        accuracy_level: int = 0,
        linked_weights: Mapping[str, Path] = MappingProxyType({}),
        threads: ThreadSettings = ANY_THREADS,
        by_block: bool = False,
    ) -> None:
        self._linked_weights, self._threads, self._by_block = linked_weights, threads, by_block
        self._files, self._keep_loaded = files, keep_loaded
        self._providers, self._accuracy_level = resolve_providers(providers), accuracy_level
        self._sessions: dict[str, Any] = {}
        self._states = {name: read_file_state(file) for name, file in files.items()}
        self.load_seconds, self._has_warned = 0.0, False

    def __call__(self, name: str, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Returns the first output of a graph.

        Args:
            name: Name of the graph.
            inputs: Inputs by name. Floats are cast to the dtype that the graph takes.

        Returns:
            The output; floats are cast to float32.

        Raises:
            UserError: The graph does not exist, was replaced since, or ONNX Runtime cannot load or run it.
        """
        return self.run(name, inputs)[0]

    def run(self, name: str, inputs: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Returns all outputs of a graph; see `__call__`."""
        session = self._get_session(name)
        types = {port.name: port.type for port in session.get_inputs()}
        self._require_inputs(name, inputs, types)
        feed = {
            key: value.astype(FLOAT_DTYPES.get(types[key], value.dtype), copy=False) for key, value in inputs.items()
        }
        try:
            with run_on_cores(self._threads.cores):
                outputs = session.run(None, feed)
        except ORT_ERRORS as error:
            raise _to_user_error(f"Cannot run {self._files[name]}", error) from error
        return [output.astype(np.float32, copy=False) for output in outputs]

    def _require_inputs(self, name: str, given: Iterable[str], taken: Iterable[str]) -> None:
        """Refuses a graph that takes other inputs, such as one in the place of another."""
        if set(given) != set(taken):
            raise UserError(
                f"{self._files[name]} is no graph {name!r}: it takes {', '.join(sorted(taken)) or 'no inputs'} instead "
                f"of {', '.join(sorted(given))}. Export the artifact again."
            )

    def loaded_graphs(self) -> tuple[str, ...]:
        """Returns the names of the graphs in memory."""
        return tuple(self._sessions)

    @property
    def engine(self) -> str:
        """Version of ONNX Runtime, and the providers that the graphs in memory really use."""
        providers = dict.fromkeys(name for session in self._sessions.values() for name in session.get_providers())
        return f"ONNX Runtime {onnxruntime.__version__}, {', '.join(providers)}"

    def _get_session(self, name: str) -> Any:
        if name not in self._sessions:
            start = perf_counter()
            if not self._keep_loaded:
                self._sessions.clear()
                malloc_trim()
            self._sessions[name] = self._create_session(name)
            self.load_seconds += perf_counter() - start
        return self._sessions[name]

    def _create_session(self, name: str) -> Any:
        if name not in self._files:
            raise UserError(
                f"Graph {name!r} is not in pipeline.json, which lists {', '.join(self._files) or 'none'}. "
                "Export the artifact again."
            )
        try:
            session = create_session(
                self._files[name],
                self._providers,
                self._accuracy_level,
                self._linked_weights,
                self._threads,
                self._by_block,
            )
        except ORT_ERRORS as error:
            self._require_unchanged(name)
            raise _to_user_error(f"Cannot load {self._files[name]}", error) from error
        self._require_unchanged(name)
        self._warn_about_fallback(session)
        return session

    def _warn_about_fallback(self, session: Any) -> None:
        """Says once which providers could not be loaded, such as for want of the libraries of a GPU."""
        missing = [_shorten(provider) for provider in self._providers if provider not in session.get_providers()]
        if missing and not self._has_warned:
            self._has_warned = True
            used = ", ".join(map(_shorten, session.get_providers()))
            logger.warning("ONNX Runtime could not load %s. Graphs run with %s instead.", ", ".join(missing), used)

    def _require_unchanged(self, name: str) -> None:
        """Refuses a graph of another export, which must not be mixed with graphs that were loaded before."""
        file = self._files[name]
        if read_file_state(file) != self._states[name]:
            raise UserError(f"{file} was replaced since the artifact was opened. Run the command again.")


def resolve_providers(names: Sequence[str]) -> list[str]:
    """Returns the execution providers that names stand for: `CPU`, `CUDA`, `TensorRT`, or full names, in any case.

    The name `auto` stands for those of TensorRT, CUDA and the CPU that this ONNX Runtime has, in this order.

    Raises:
        UserError: This ONNX Runtime has no such provider.
    """
    available = {_shorten(provider).lower(): provider for provider in onnxruntime.get_available_providers()}
    if [name.lower() for name in names] == [AUTO]:
        return [provider for provider in PREFERRED_PROVIDERS if provider in available.values()]
    for name in names:
        if _shorten(name).lower() not in available:
            raise UserError(
                f"This ONNX Runtime has no execution provider {_shorten(name)!r}. Choose from "
                f"{', '.join(map(_shorten, available.values()))}, or install another build of it."
            )
    return [available[_shorten(name).lower()] for name in names]


def _shorten(provider: str) -> str:
    """The name of a provider without what all names end in."""
    is_long = provider.lower().endswith(PROVIDER_SUFFIX.lower())
    return provider[: -len(PROVIDER_SUFFIX)] if is_long else provider


def create_session(
    file: Path,
    providers: Sequence[str] = CPU_PROVIDERS,
    accuracy_level: int = 0,
    linked_weights: Mapping[str, Path] = MappingProxyType({}),
    threads: ThreadSettings = ANY_THREADS,
    by_block: bool = False,
) -> Any:
    """Creates an ONNX Runtime session that logs nothing, and leaves cores and memory to those that run after it.

    Args:
        file: An ONNX graph.
        providers: Execution providers in order of preference.
        accuracy_level: How products with dequantized INT4 weights are computed: 0 in floats, 4 in int8.
        linked_weights: Weight files that are links out of the graph's folder, by the name that the graph calls them by.
            ONNX Runtime does not follow such links, so it is given what they lead to.
        threads: How the graph runs on the CPU.
        by_block: Whether activations are rounded by block on every processor; see `SessionPool`.
    """
    options = make_session_options(_read_graph(file), accuracy_level)
    options.log_severity_level = 4  # errors are raised, so they need not be logged as well
    options.intra_op_num_threads = threads.threads
    if by_block:
        options.add_session_config_entry(NO_KLEIDIAI_ENTRY, "1")
    # Idle threads of a graph look for work for tens of milliseconds, on the cores that the next graph needs.
    options.add_session_config_entry(STOP_SPINNING_ENTRY, "1")
    # A pattern would be allocated in one piece at the second run, beside the pieces that the first one left.
    options.enable_mem_pattern = False
    weights = [np.memmap(weights_file, np.uint8, "r") for weights_file in linked_weights.values()]
    if weights:
        options.add_external_initializers_from_files_in_memory(
            list(linked_weights), weights, [array.size for array in weights]
        )
    with run_on_cores(threads.cores):  # threads that it creates stay there
        return onnxruntime.InferenceSession(file, options, providers=list(providers))


def describe_session_options(files: Iterable[Path], accuracy_level: int) -> SessionOptionsConfig:
    """Describes the session options that graphs run with here, for those who run them with ONNX Runtime themselves.

    Args:
        files: The ONNX graphs.
        accuracy_level: As for `create_session`.
    """
    entries: dict[str, str] = {}
    for file in files:
        entries |= list_session_entries(_read_graph(file), accuracy_level)
    return SessionOptionsConfig(
        onnxruntime=onnxruntime.__version__,
        providers=CPU_PROVIDERS,
        graph_optimization_level=onnxruntime.SessionOptions().graph_optimization_level.name,
        entries=entries,
    )


def make_session_options(graph: bytes, accuracy_level: int = 0) -> onnxruntime.SessionOptions:
    """Creates session options with `list_session_entries`."""
    options = onnxruntime.SessionOptions()
    for key, value in list_session_entries(graph, accuracy_level).items():
        options.add_session_config_entry(key, value)
    return options


def list_session_entries(graph: bytes, accuracy_level: int = 0) -> dict[str, str]:
    """Returns the session's entries with which products of a graph are what they should be on this processor.

    Without an accuracy level, float16 graphs with DequantizeLinear may compute zeros
    (findings/onnxruntime_fused_int4_product_is_zero.sh). The entry for exact integer products makes ONNX Runtime 1.31
    reject graphs that dequantize per channel without zero points
    (findings/onnxruntime_x64quantprecision_rejects_per_channel.sh), so those go without it.

    Args:
        graph: The graph's file, without its weights.
        accuracy_level: As for `create_session`.
    """
    entries = {ACCURACY_LEVEL_ENTRY: str(accuracy_level)}
    if saturates_int8() and b"MatMulInteger" in graph and b"DequantizeLinear" not in graph:
        entries[EXACT_INT8_ENTRY] = "1"
    return entries


def _read_graph(file: Path) -> bytes:
    """The file of a graph, where its session's entries depend on it."""
    return file.read_bytes() if saturates_int8() and file.exists() else b""


@cache
def saturates_int8() -> bool:
    """Whether this processor adds pairs of int8 products in 16 bits, which saturates for large codes.

    An x86 processor without VNNI does. There `session.x64quantprecision` makes ONNX Runtime multiply exactly, in more
    time. With VNNI it would only take longer.
    """
    features = read_cpu_features()
    return bool(features.flags) and not features.has_exact_int8


def _to_user_error(problem: str, error: Exception) -> UserError:
    """Makes a user error of an error of ONNX Runtime; running out of memory is not the fault of the file."""
    reason = str(error).splitlines()[0]
    if any(message in reason for message in OUT_OF_MEMORY_MESSAGES):
        return UserError(f"{problem}: not enough memory. Generate a smaller image, or decode it in tiles.")
    return UserError(f"{problem} ({reason}). Export the artifact again.")
