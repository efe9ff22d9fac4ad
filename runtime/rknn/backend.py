"""What runs an artifact's graphs: parts on the NPU, by the board's runtime or simulated, and parts on the CPU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError
from ...models.base.npu import NpuHost, load_npu_host_class, load_npu_spec
from ...models.registry import get_family
from ..onnx.sessions import SessionPool
from .exported import EMBEDDINGS_FILE, ExportedRknn
from .npu import NpuBackend, has_npu_runtime
from .part_chain import Arrays, RunPart
from .simulator import SimulatorBackend
from .toolkit import Toolkit
from .vae_tiling import chain_graphs


class RknnBackend:
    """Runs graphs by name; NPU parts stay loaded. The simulator's process ends with this one.

    host: of the artifact. keep: whether parts on the CPU stay in memory too.
    """

    def __init__(self, exported: ExportedRknn, host: NpuHost, keep_loaded: bool = True) -> None:
        npu: NpuBackend | SimulatorBackend = (
            NpuBackend(exported) if has_npu_runtime() else SimulatorBackend(exported, Toolkit())
        )
        on_cpu = {name: exported.onnx_file(part) for name, part in exported.parts.items() if part.device == "cpu"}
        cpu = SessionPool(on_cpu, keep_loaded)
        self._npu, self._cpu = npu, cpu
        part: RunPart = lambda name, inputs: (cpu if name in on_cpu else npu)(name, inputs)  # noqa: E731
        self._run = chain_graphs(host, exported.part_refs, part)

    @property
    def load_seconds(self) -> float:
        """Seconds that loading parts has taken so far."""
        return self._npu.load_seconds + self._cpu.load_seconds

    @property
    def engine(self) -> str:
        """What runs the parts on the NPU."""
        return self._npu.engine

    @property
    def is_simulated(self) -> bool:
        """Whether that is the simulator."""
        return isinstance(self._npu, SimulatorBackend)

    def __call__(self, name: str, inputs: Arrays) -> NDArray[np.float32]:
        """The output of a graph."""
        return self._run(name, inputs)


def open_backend(exported: ExportedRknn, keep_loaded: bool = True) -> tuple[NpuHost, RknnBackend]:
    """The host and the backend of an artifact.

    Raises:
        UserError: nothing is known of its family, or its embeddings are missing.
    """
    path = exported.folder / EMBEDDINGS_FILE
    try:
        embeddings = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); export the artifact again.") from error
    make = load_npu_host_class(load_npu_spec(get_family(exported.family)))
    host = make(exported.host_configs, exported.image_size, exported.max_prompt_tokens, embeddings, exported.tile_size)
    return host, RknnBackend(exported, host, keep_loaded)
