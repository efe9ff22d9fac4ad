"""Measures pairs of pictures: one row of the results a pair."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import UserError
from ..prompts import Prompt
from .defects import defect_of
from .generate import open_picture
from .registry import Metric, PairMetric, Picture, PictureMetric, Reading, Values
from .results import PictureRow, Row


class Pair(NamedTuple):
    """The files of the reference's and the variant's picture of one prompt and seed."""

    prompt: Prompt
    seed: int
    reference: Path
    variant: Path


def measure(pair: Pair, metrics: Sequence[Metric]) -> Row:
    """The row of a pair.

    Raises:
        UserError: the two pictures differ in size, or one cannot be read.
    """
    reference, variant = open_picture(pair.reference), open_picture(pair.variant)
    if reference.shape != variant.shape:
        sizes = " and ".join(f"{picture.shape[1]}x{picture.shape[0]}" for picture in (reference, variant))
        raise UserError(
            f"Prompt {pair.prompt.id!r}, seed {pair.seed}: reference and variant differ in size ({sizes}); "
            "compare pipelines that paint the same size."
        )
    return Row(
        prompt=pair.prompt,
        seed=pair.seed,
        identical=np.array_equal(reference, variant),
        values=_compare(reference, variant, pair.prompt, metrics),
        reference=_judge(reference, pair.reference, pair.prompt, metrics),
        variant=_judge(variant, pair.variant, pair.prompt, metrics),
    )


def _compare(reference: Picture, variant: Picture, prompt: Prompt, metrics: Sequence[Metric]) -> Values:
    values: Values = {}
    for metric in metrics:
        if isinstance(metric, PairMetric):
            values |= metric.measure(reference, variant, prompt)
    return values


def _judge(picture: Picture, file: Path, prompt: Prompt, metrics: Sequence[Metric]) -> PictureRow:
    found = Reading({}, {})
    for metric in metrics:
        if isinstance(metric, PictureMetric):
            values, notes = metric.measure(picture, prompt)
            found = Reading(found.values | values, found.notes | notes)
    name = f"{file.parent.name}/{file.name}"
    return PictureRow(file=name, values=found.values, notes=found.notes, defect=defect_of(picture))
