"""OpenVINO on the CPU: the graphs as they were exported, compiled on first use.

OpenVINO chooses what it computes in: bfloat16 on processors that multiply it, which is faster than float32 and less
exact (docs/benchmarks/openvino.md). By default it also rounds the activations of 4-bit products to 8 bits
(findings/openvino_rounds_activations_of_int4_layers.sh); here it does so only if the graphs ask for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError, summarize_error
from ...common.memory import malloc_trim
from ...common.requirements import missing_package
from ...common.telemetry import openvino_telemetry_disabled
from ...storage.snapshot import read_file_state

DEVICE, PRECISION, GROUP_SIZE = "CPU", "INFERENCE_PRECISION_HINT", "DYNAMIC_QUANTIZATION_GROUP_SIZE"
NUM_THREADS = "INFERENCE_NUM_THREADS"
EXTRA = "openvino"


class OpenVinoSessions:
    """Runs graphs by name.

    Args:
        files: Files of the graphs, by name.
        keep_loaded: Whether graphs stay in memory. Otherwise at most one is in memory.
        accuracy_level: Of products with 4-bit weights: 0 keeps activations, 4 rounds them to 8 bits in groups of
            OpenVINO's choice.
        threads: Threads of a graph; 0: as OpenVINO chooses.

    Raises:
        UserError: The package openvino is not installed.
    """

    def __init__(
        self, files: Mapping[str, Path], keep_loaded: bool = True, accuracy_level: int = 0, threads: int = 0
    ) -> None:
        try:
            with openvino_telemetry_disabled():
                import openvino
        except ModuleNotFoundError as error:
            raise missing_package(error, EXTRA) from error
        self._core, self._version = openvino.Core(), openvino.__version__.partition("-")[0]
        self._files, self._keep_loaded = files, keep_loaded
        self._options: dict[str, Any] = {} if accuracy_level else {GROUP_SIZE: "0"}
        if threads:
            self._options[NUM_THREADS] = threads
        self._states = {name: read_file_state(file) for name, file in files.items()}
        self._compiled: dict[str, Any] = {}
        self._load_seconds = 0.0

    def __call__(self, name: str, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Returns the first output of a graph; see `run`."""
        return self.run(name, inputs)[0]

    def run(self, name: str, inputs: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Returns all outputs of a graph.

        Args:
            name: Name of the graph.
            inputs: Inputs by name. Floats are cast to the dtype that the graph takes.

        Raises:
            UserError: The graph does not exist, takes other inputs, was replaced since, or OpenVINO cannot load or run
                it.
        """
        compiled = self._get_compiled(name)
        ports = {_get_input_name(port, inputs): port for port in compiled.inputs}
        dtypes = {name: port.get_element_type().to_dtype() for name, port in ports.items()}
        if dtypes.keys() != inputs.keys():
            raise UserError(
                f"{self._files[name]} is no graph {name!r}: it takes {', '.join(sorted(dtypes))} instead of "
                f"{', '.join(sorted(inputs))}. Export the artifact again."
            )
        feed = {key: np.ascontiguousarray(value, dtypes[key]) for key, value in inputs.items()}
        try:
            outputs = compiled({ports[key]: value for key, value in feed.items()})
        except RuntimeError as error:
            raise self._to_user_error("run", name, error) from error
        return [np.array(outputs[port], np.float32) for port in compiled.outputs]

    @property
    def load_seconds(self) -> float:
        """Time spent loading graphs so far, in seconds."""
        return self._load_seconds

    @property
    def engine(self) -> str:
        """Version of OpenVINO, the device, and what the graphs in memory are computed in."""
        precisions = {str(model.get_property(PRECISION).get_type_name()) for model in self._compiled.values()}
        return ", ".join([f"OpenVINO {self._version}", DEVICE, *sorted(precisions)])

    def _get_compiled(self, name: str) -> Any:
        if name not in self._compiled:
            if name not in self._files:
                raise UserError(
                    f"Graph {name!r} is not in pipeline.json, which lists {', '.join(self._files) or 'none'}. "
                    "Export the artifact again."
                )
            start = perf_counter()
            if not self._keep_loaded:
                self._compiled.clear()
                malloc_trim()
            try:
                self._compiled[name] = self._core.compile_model(str(self._files[name]), DEVICE, self._options)
            except RuntimeError as error:
                raise self._to_user_error("load", name, error) from error
            if read_file_state(self._files[name]) != self._states[name]:
                raise UserError(
                    f"{self._files[name]} was replaced since the artifact was opened. Run the command again."
                )
            self._load_seconds += perf_counter() - start
        return self._compiled[name]

    def _to_user_error(self, verb: str, name: str, error: Exception) -> UserError:
        return UserError(
            f"OpenVINO {self._version} cannot {verb} {self._files[name]} ({summarize_error(error)}). Use ONNX Runtime: "
            "leave out the engine."
        )


def _get_input_name(port: Any, inputs: Mapping[str, Any]) -> str:
    # In graphs in fp16 OpenVINO drops the casts of inputs, and their results' names become names of the input as well.
    return next((name for name in inputs if name in port.get_names()), str(port.get_any_name()))
