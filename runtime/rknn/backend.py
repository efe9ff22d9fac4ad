"""Runs the graphs of an artifact: NPU parts on the board or in the simulator, the other parts in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError, summarize_error
from ...models.base.npu import NpuHost, load_npu_host_class, load_npu_spec
from ...models.registry import get_family
from ..malformed import reject_malformed
from ..onnx.exported import find_linked_weights
from ..onnx.sessions import SessionPool
from ..thread_settings import ANY_THREADS, ThreadSettings
from .exported import EMBEDDINGS_FILE, ExportedRknn
from .npu import NpuBackend, has_npu_runtime
from .part_chain import Arrays, dispatch_parts
from .simulator import SimulatorBackend
from .toolkit import Toolkit
from .vae_tiling import chain_graphs


class RknnBackend:
    """Runs graphs by name. NPU parts stay loaded; the simulator ends with this process.

    Args:
        exported: The artifact.
        host: Its host.
        keep_loaded: Whether parts on the CPU stay loaded too.
        threads: How parts run on the CPU.
    """

    def __init__(
        self,
        exported: ExportedRknn,
        host: NpuHost,
        keep_loaded: bool = True,
        threads: ThreadSettings = ANY_THREADS,
    ) -> None:
        self._npu = NpuBackend(exported) if has_npu_runtime() else SimulatorBackend(exported, Toolkit())
        parts = exported.parts.values()
        cpu_files = {part.name: exported.onnx_file(part) for part in parts if part.device == "cpu"}
        linked_weights = find_linked_weights(exported.folder)
        self._cpu = SessionPool(cpu_files, keep_loaded, linked_weights=linked_weights, threads=threads)
        npu_parts = {part.name for part in parts if part.device == "npu"}
        self._run_graph = chain_graphs(host, exported.part_refs, dispatch_parts(npu_parts, self._npu, self._cpu))

    @property
    def load_seconds(self) -> float:
        """Time spent on loading parts so far."""
        return self._npu.load_seconds + self._cpu.load_seconds

    @property
    def engine(self) -> str:
        """Name of what runs the parts on the NPU."""
        return self._npu.engine

    @property
    def is_simulated(self) -> bool:
        """Whether that is the simulator."""
        return isinstance(self._npu, SimulatorBackend)

    def __call__(self, name: str, inputs: Arrays) -> NDArray[np.float32]:
        """Returns the output of a graph."""
        return self._run_graph(name, inputs)

    def run(self, name: str, inputs: Arrays) -> Sequence[NDArray[np.float32]]:
        """Returns the output of a graph as the only one."""
        return self._run_graph.run(name, inputs)


def open_backend(
    exported: ExportedRknn, keep_loaded: bool = True, threads: ThreadSettings = ANY_THREADS
) -> tuple[NpuHost, RknnBackend]:
    """Opens an artifact.

    Returns:
        Its host, and the backend that runs its graphs.

    Raises:
        UserError: Its family has no graphs for an NPU, its embeddings cannot be read, or pipeline.json is malformed.
    """
    path = exported.folder / EMBEDDINGS_FILE
    try:
        embeddings = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path}: {summarize_error(error)}. Export the artifact again.") from error
    host_class = load_npu_host_class(load_npu_spec(get_family(exported.pipeline_class)))
    with reject_malformed(exported.folder):
        host = host_class(
            exported.host_configs, exported.image_size, exported.max_prompt_tokens, embeddings, exported.tile_size
        )
    return host, RknnBackend(exported, host, keep_loaded, threads)
