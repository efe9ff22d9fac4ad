"""A job: what the driver asks of a worker, as JSON. Standard library only, as both sides read it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Batch:
    """Prompts that are painted together, and the seed of each one's noise."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class QuantizeJob:
    """Layers of a pipeline to quantize.

    layers: module names within each component. dtype: what the pipeline is loaded in. calibration: what a peer that
    calibrates may paint, with `sampling` as the pipeline's keyword arguments. options: the peer's own settings.
    """

    pipeline: str
    layers: dict[str, tuple[str, ...]]
    dtype: str
    calibration: tuple[Batch, ...]
    sampling: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> QuantizeJob:
        content = json.loads(text)
        content["layers"] = {name: tuple(layers) for name, layers in content["layers"].items()}
        batches = [{key: tuple(value) for key, value in batch.items()} for batch in content["calibration"]]
        content["calibration"] = tuple(Batch(**batch) for batch in batches)
        return cls(**content)


@dataclass(frozen=True)
class Outcome:
    """What a worker says of its work.

    weights: how many were quantized. bits: what the peer stores for them, all of it. version: the peer's. finished: the
    time at which they were quantized, before they were read back.
    """

    num_weights: int
    num_bits: int
    version: str
    finished_at: float

    @property
    def bits_per_weight(self) -> float:
        return self.num_bits / self.num_weights

    def write(self, file: Path) -> None:
        """Written last of all, and at once: a folder that has it is whole."""
        new = file.with_name(file.name + ".new")
        new.write_text(json.dumps(asdict(self)), "utf-8")
        new.replace(file)

    @classmethod
    def read(cls, file: Path) -> Outcome:
        return cls(**json.loads(file.read_text("utf-8")))
