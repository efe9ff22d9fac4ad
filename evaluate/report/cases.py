"""The gallery's data for the page's scripts: a case a prompt, seed and variant, with scores, pictures and readings.

Pictures go into the page worst first, until the budget is spent. A case that has none still shows its numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...errors import UserError
from ..pictures import open_picture
from ..registry import Picture, Score
from ..results import ALL, PictureRow, Results, Row, VariantRow
from ..summary import grouped
from . import text_diff, words
from .heat import Heat
from .thumbnails import LARGE, SMALL, Thumbnails

CLOSE = 24  # cases whose pictures are kept large


@dataclass(frozen=True)
class Case:
    """A variant's row: `row` is its number in the results."""

    row: int
    variant: str


@dataclass(frozen=True)
class Gallery:
    """`data` is what the scripts read; of `painted` cases that have a picture, `shown` have it in the page."""

    data: dict[str, Any]
    shown: int
    painted: int


def gallery(results: Results, folder: Path, heat: Heat, thumbnails: Thumbnails) -> Gallery:
    """All cases, in the order of the rows; `folder` is where the page will be."""
    order = worst_first(results)
    album = _Album(results, folder, thumbnails, heat)
    for rank, case in enumerate(order):
        album.take(case, LARGE if rank < CLOSE else SMALL)
    cases = [Case(number, name) for number, row in enumerate(results.rows) for name in row.variants]
    data = {
        "variants": list(results.variants),
        "scores": [_score_data(score, score in results.pair_scores) for score in words.scores_of(results).values()],
        "groups": [name for name in grouped(results.rows) if name != ALL],
        "rows": [_row_data(row, number, album) for number, row in enumerate(results.rows)],
        "cases": [_case_data(results.rows[case.row], case, album) for case in cases],
        "images": album.thumbnails.addresses,
    }
    painted = [case for case, row in _cases(results) if row.variants[case.variant].picture]
    return Gallery(data, len(album.variants), len(painted))


def worst_first(results: Results) -> list[Case]:
    """What could not be compared or shows nothing, then every case by its worst place in the order of any score."""
    ranks: dict[Case, int] = {}
    for score in words.scores_of(results).values():
        bad = {case: value for case, row in _cases(results) if (value := badness(row, case.variant, score)) is not None}
        for rank, case in enumerate(sorted(bad, key=lambda case: -bad[case]), 1):
            ranks[case] = min(rank, ranks.get(case, rank))
    broken = {case for case, row in _cases(results) if _is_broken(row.variants[case.variant])}
    return sorted(
        (case for case, _ in _cases(results)),
        key=lambda case: (case not in broken, ranks.get(case, len(results.rows) + 1), case.row),
    )


def badness(row: Row, variant: str, score: Score) -> float | None:
    """Higher where the variant is worse: a pair score, or the drop of a picture score; None where it has none."""
    sign = 1 if score.higher_is_better else -1
    seen = row.variants[variant]
    if seen.failure is not None:
        return None
    if score.name in seen.values:
        value = seen.values[score.name]
        return None if value is None else -sign * value
    reference, other = _value(row.reference, score), _value(seen.picture, score)
    return None if reference is None or other is None else sign * (reference - other)


def _cases(results: Results) -> Iterator[tuple[Case, Row]]:
    for number, row in enumerate(results.rows):
        for name in row.variants:
            yield Case(number, name), row


def _is_broken(seen: VariantRow) -> bool:
    return seen.failure is not None or (seen.picture is not None and seen.picture.defect is not None)


def _file(picture: PictureRow | None) -> str | None:
    return picture.file if picture else None


def _value(picture: PictureRow | None, score: Score) -> float | None:
    return picture.values.get(score.name) if picture else None


# ---------------------------------------------------------------- pictures


@dataclass
class _Album:
    """Which picture of the page stands for which row and case."""

    results: Results
    folder: Path
    thumbnails: Thumbnails
    heat: Heat
    references: dict[int, int] = field(default_factory=dict)
    truths: dict[int, int] = field(default_factory=dict)
    variants: dict[Case, int] = field(default_factory=dict)
    heats: dict[Case, int] = field(default_factory=dict)
    sizes: dict[int, tuple[int, int]] = field(default_factory=dict)  # width and height of a row's pictures

    def take(self, case: Case, side: int) -> None:
        """Puts a case's pictures into the page, where they can be read and there is room."""
        row = self.results.rows[case.row]
        seen = row.variants[case.variant]
        reference, variant, truth = (self.read(file) for file in (_file(row.reference), _file(seen.picture), row.truth))
        for picture, kept, key in (
            (reference, self.references, case.row),
            (truth, self.truths, case.row),
            (variant, self.variants, case),
        ):
            if picture is not None and key not in kept:
                self.keep(picture, kept, key, side)
        if reference is not None and variant is not None and reference.shape == variant.shape:
            self.keep(self.heat.draw(reference, variant), self.heats, case, side)
        shown = reference if reference is not None else variant
        if shown is not None:
            self.sizes[case.row] = (shown.shape[1], shown.shape[0])

    def keep(self, picture: Picture, kept: dict[Any, int], key: int | Case, side: int) -> None:
        number = self.thumbnails.add(picture, side)
        if number is not None:
            kept[key] = number

    def read(self, file: str | None) -> Picture | None:
        """None for what is not there or cannot be read: the page then says so in its place."""
        if file is None:
            return None
        try:
            return open_picture(self.path(file))
        except UserError:
            return None

    def path(self, file: str) -> Path:
        return Path(self.results.identity.pictures) / file

    def link(self, file: str | None) -> str | None:
        """The address of the original as seen from the page, if it is there."""
        if file is None or not self.path(file).exists():
            return None
        return quote(os.path.relpath(self.path(file).absolute(), self.folder.absolute()))


# ---------------------------------------------------------------- what the scripts read


def _score_data(score: Score, pair: bool) -> dict[str, Any]:
    factor, digits = words.form(score)
    return {
        "name": score.name,
        "title": score.title,
        "brief": words.brief(score),
        "unit": score.unit,
        "higher": score.higher_is_better,
        "pair": pair,
        "truth": words.against_truth(score),
        "factor": factor,
        "digits": digits,
    }


def groups_of(row: Row) -> list[str]:
    """The groups that a row counts to, that of all left out."""
    return [name for name in grouped([row]) if name != ALL]


def _row_data(row: Row, number: int, album: _Album) -> dict[str, Any]:
    return {
        "id": row.prompt.id,
        "seed": row.seed,
        "prompt": row.prompt.prompt,
        "lang": "en" if row.prompt.language == "en" else "zh",  # Chinese has its own forms of characters
        "lines": row.prompt.lines,
        "groups": groups_of(row),
        "size": album.sizes.get(number),
        "truth": album.truths.get(number),
        "reference": _picture_data(row.reference, row, album.references.get(number), album),
        "truthLink": album.link(row.truth),
    }


def _case_data(row: Row, case: Case, album: _Album) -> dict[str, Any]:
    seen = row.variants[case.variant]
    return {
        "row": case.row,
        "variant": case.variant,
        "identical": seen.identical,
        "failure": seen.failure,
        "values": seen.values,
        "picture": _picture_data(seen.picture, row, album.variants.get(case), album),
        "heat": album.heats.get(case),
    }


def _picture_data(picture: PictureRow | None, row: Row, image: int | None, album: _Album) -> dict[str, Any] | None:
    if picture is None:
        return None
    read = picture.notes.get("read")
    return {
        "image": image,
        "link": album.link(picture.file),
        "values": picture.values,
        "defect": picture.defect,
        "read": None if read is None else text_diff.compare(row.prompt.lines, read),
    }
