"""What runs an artifact's graphs: parts on the NPU, by the board's runtime or simulated, and parts on the CPU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...errors import UserError
from ...models import family_of
from ...models.npu import NpuHost, npu_host_class, npu_of
from ..sessions import Sessions
from .board import OnBoard, available
from .chain import Arrays, RunPart
from .manifest import EMBEDDINGS, Exported
from .simulator import Simulated
from .tiles import chained
from .toolkit import Toolkit


class Backend:
    """Runs graphs by name; NPU parts stay loaded. The simulator's process ends with this one.

    host: of the artifact. keep: whether parts on the CPU stay in memory too.
    """

    def __init__(self, exported: Exported, host: NpuHost, keep: bool = True) -> None:
        npu: OnBoard | Simulated = OnBoard(exported) if available() else Simulated(exported, Toolkit())
        on_cpu = {name: exported.onnx(part) for name, part in exported.parts.items() if part.device == "cpu"}
        cpu = Sessions(on_cpu, keep)
        self._npu, self._cpu = npu, cpu
        part: RunPart = lambda name, inputs: (cpu if name in on_cpu else npu)(name, inputs)  # noqa: E731
        self._run = chained(host, exported.links, part)

    @property
    def loading(self) -> float:
        """Seconds that loading parts has taken so far."""
        return self._npu.loading + self._cpu.loading

    @property
    def engine(self) -> str:
        """What runs the parts on the NPU."""
        return self._npu.engine

    @property
    def simulated(self) -> bool:
        """Whether that is the simulator."""
        return isinstance(self._npu, Simulated)

    def __call__(self, name: str, inputs: Arrays) -> NDArray[np.float32]:
        """The output of a graph."""
        return self._run(name, inputs)


def opened(exported: Exported, keep: bool = True) -> tuple[NpuHost, Backend]:
    """The host and the backend of an artifact.

    Raises:
        UserError: nothing is known of its family, or its embeddings are missing.
    """
    path = exported.folder / EMBEDDINGS
    try:
        embeddings = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); export the artifact again.") from error
    make = npu_host_class(npu_of(family_of(exported.family)))
    host = make(exported.host, exported.size, exported.tokens, embeddings, exported.tile)
    return host, Backend(exported, host, keep)
