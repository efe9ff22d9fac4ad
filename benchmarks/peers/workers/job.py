"""A job for a worker and its outcome, as JSON. Standard library only, because both environments import it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Batch:
    """Prompts that run in one batch, and the seed of the noise of each."""

    prompts: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class QuantizeJob:
    """Layers of a pipeline to quantize.

    Attributes:
        pipeline: The pipeline's folder.
        layers: Module names by component.
        dtype: Dtype to load the pipeline in.
        calibration: Batches for peers that calibrate.
        sampling: Keyword arguments of the pipeline for them.
        options: Settings of the peer.
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
    """The result of a worker.

    Attributes:
        num_weights: Number of quantized weights.
        num_bits: Bits that the peer stores for them, including scales and zero points.
        version: Version of the peer.
        finished_at: Unix time when the weights were quantized, before they were read back.
    """

    num_weights: int
    num_bits: int
    version: str
    finished_at: float

    @property
    def bits_per_weight(self) -> float:
        return self.num_bits / self.num_weights

    def write(self, file: Path) -> None:
        """Writes the file atomically. It is the last one, so a folder that has it is complete."""
        new = file.with_name(file.name + ".new")
        new.write_text(json.dumps(asdict(self)), "utf-8")
        new.replace(file)

    @classmethod
    def read(cls, file: Path) -> Outcome:
        return cls(**json.loads(file.read_text("utf-8")))
