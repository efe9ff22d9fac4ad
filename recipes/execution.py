"""How a device runs graphs on its CPU: with how many threads, and on which of its cores."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .frozen_model import FrozenModel

MAX_THREADS = 1024
NumThreads = Annotated[int, Field(ge=0, le=MAX_THREADS)]


class RuntimeSettings(FrozenModel):
    """How graphs run on the device's CPU."""

    threads: NumThreads = Field(
        default=0,
        description="Threads that compute a graph; 0 leaves the number to ONNX Runtime, which takes one for each core. "
        "What users give goes before it.",
    )
    cores: Literal["all", "fast"] = Field(
        default="all",
        description="`fast` runs these threads on the fast cores only, where Linux reports cores of different speed: "
        "a thread on a slow core would let the rest of them wait.",
    )


DEFAULT_RUNTIME = RuntimeSettings()
