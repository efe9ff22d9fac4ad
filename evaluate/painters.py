"""Paints batches of prompts: diffusers pipelines with torch, exported graphs and parts with the runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UserError
from ..prompts import Prompt
from ..sampling import Sampling, load_pipeline, sample, seed_of
from .registry import Picture
from .sides import Side

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Batch:
    """Prompts that are painted together."""

    prompts: tuple[Prompt, ...]
    seed: int


class Painted(NamedTuple):
    """A picture, whether any of its pixels was no number (those are black), and what was cut of its prompt."""

    picture: Picture
    broken: bool
    cut: str = ""


Paint = Callable[[Batch], Sequence[Painted]]


def batch_size(side: Side, sampling: Sampling) -> int:
    """How many pictures a side paints together."""
    return sampling.batch if side.kind == "diffusers" else 1


def engine_of(side: Side) -> str | None:
    """What runs a side's parts for an NPU here, by name and version, as their pictures depend on it.

    Raises:
        UserError: no runtime of a board is here, nor the toolkit with its simulator.
    """
    return _npu_engine() if side.kind == "rknn" else None


@cache
def _npu_engine() -> str:
    from importlib.metadata import version

    from ..runtime.rknn.board import available
    from ..runtime.rknn.toolkit import Toolkit

    if available():
        return f"on the board by rknn-toolkit-lite2 {version('rknn-toolkit-lite2')}"
    with Toolkit() as toolkit:
        return f"simulated by rknn-toolkit2 {toolkit.call('hello').answer['toolkit']}"


def painter(side: Side, sampling: Sampling, dtype: str) -> Paint:
    """What paints as a side does, from noise that depends on prompt id and seed alone.

    Raises:
        UserError: the side cannot be loaded, or cannot paint so.
    """
    return _pipeline(side.folder, sampling, dtype) if side.kind == "diffusers" else _graphs(side.folder, sampling)


def _pipeline(folder: Path, sampling: Sampling, dtype: str) -> Paint:
    import torch

    pipeline = load_pipeline(folder, getattr(torch, dtype))

    def paint(batch: Batch) -> list[Painted]:
        images: Any = sample(pipeline, batch.prompts, sampling, batch.seed, output="np")
        return [_eight_bits(image) for image in images]

    return paint


def _eight_bits(image: npt.NDArray[np.float32]) -> Painted:
    """0 ... 1 rounded as diffusers does it."""
    broken = np.isnan(image)
    return Painted((np.where(broken, 0, image) * 255).round().astype(np.uint8), bool(broken.any()))


def _graphs(folder: Path, sampling: Sampling) -> Paint:
    from ..runtime.paint import Painter, Wish

    if sampling.guidance:
        raise UserError(f"{folder}: exported graphs paint without guidance; set evaluation.guidance to 0.")
    painter = Painter(folder)
    size = (sampling.height, sampling.width)

    def paint(batch: Batch) -> list[Painted]:
        wishes = [Wish(one.prompt, seed_of(one.id, batch.seed), sampling.steps, size) for one in batch.prompts]
        return [_watched(partial(painter.paint, wish)) for wish in wishes]

    return paint


def _watched(paint: Callable[..., Image]) -> Painted:
    """The picture; where NaN is made into a byte, numpy calls the operation invalid."""
    invalid: list[str] = []
    told: list[str] = []
    with np.errstate(invalid="call", call=lambda kind, _: invalid.append(kind)):
        picture = np.asarray(paint(tell=told.append))
    return Painted(picture, bool(invalid), " ".join(told))
