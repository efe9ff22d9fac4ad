"""What runs graphs by name, whichever engine it is."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class GraphSessions(Protocol):
    """Runs graphs by name, loading each when it is first used."""

    def __call__(self, name: str, inputs: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Returns the first output of a graph."""

    def run(self, name: str, inputs: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Returns all outputs of a graph."""

    @property
    def load_seconds(self) -> float:
        """Time spent loading graphs so far, in seconds."""

    @property
    def engine(self) -> str:
        """Name and version of the engine, and what it computes on."""
