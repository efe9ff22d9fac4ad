"""Puts rows together: which pictures are compared, what is to be measured, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..prompts import Prompt
from .defects import Defect, repeated
from .measure import About, Task
from .pictures import Shot, Unread
from .registry import TRUTH, Reading, Values
from .results import CUT, PictureRow, Row, VariantRow

Asked = tuple[str, int]  # prompt id and seed
Looked = Shot | Unread
Readings = Mapping[About, Mapping[str, Reading]]  # by metric


@dataclass(frozen=True)
class Pictures:
    """What one side has for a prompt and seed; `repeated` are contents that several of its prompts share."""

    shots: Mapping[Asked, Looked]
    repeated: frozenset[str]


@dataclass(frozen=True)
class Compared:
    """The pictures of the reference, of the variants by name, of the reference run again; true ones by prompt id."""

    reference: Pictures
    variants: Mapping[str, Pictures]
    floor: Pictures | None
    truth: Mapping[str, Shot]

    @property
    def others(self) -> list[Pictures]:
        """All that is compared with the reference."""
        return [*self.variants.values(), *([self.floor] if self.floor else [])]


def pictures_of(shots: Mapping[Asked, Looked]) -> Pictures:
    contents = [(asked[0], shot.digest) for asked, shot in shots.items() if isinstance(shot, Shot)]
    return Pictures(shots, frozenset(repeated(contents)))


def tasks_of(prompt: Prompt, seed: int, compared: Compared) -> Iterator[Task]:
    """What is to be measured for one row."""
    reference = compared.reference.shots[prompt.id, seed]
    if not isinstance(reference, Shot):
        return
    others = [pictures.shots[prompt.id, seed] for pictures in compared.others]
    fit = [shot for shot in others if isinstance(shot, Shot) and _failure(reference, shot) is None]
    for shot in (reference, *fit):
        yield Task((shot,), prompt)
        if prompt.id in compared.truth:
            yield Task((compared.truth[prompt.id], shot), prompt, against_truth=True)
    yield from (Task((reference, shot), prompt) for shot in fit)


def row_of(prompt: Prompt, seed: int, compared: Compared, readings: Readings, root: Path) -> Row:
    """The row of a prompt and seed, given the readings of its tasks; files are named relative to `root`."""
    build = _Builder(prompt, seed, compared, readings, root)
    return Row(
        prompt=prompt,
        seed=seed,
        truth=build.name(compared.truth[prompt.id].file) if prompt.id in compared.truth else None,
        reference=build.picture(compared.reference),
        variants={name: build.variant(pictures) for name, pictures in compared.variants.items()},
        floor=build.variant(compared.floor) if compared.floor else None,
    )


@dataclass(frozen=True)
class _Builder:
    prompt: Prompt
    seed: int
    compared: Compared
    readings: Readings
    root: Path

    def variant(self, pictures: Pictures) -> VariantRow:
        reference, shot = (side.shots[self.prompt.id, self.seed] for side in (self.compared.reference, pictures))
        failure = _failure(reference, shot)
        if failure or not (isinstance(reference, Shot) and isinstance(shot, Shot)):
            return VariantRow(identical=False, values={}, picture=self._unmeasured(pictures), failure=failure)
        return VariantRow(
            identical=reference.digest == shot.digest,
            values=self._values(Task((reference, shot), self.prompt)),
            picture=self.picture(pictures),
        )

    def picture(self, pictures: Pictures) -> PictureRow | None:
        """A picture with its scores, or None where there is none to be read."""
        shot = pictures.shots[self.prompt.id, self.seed]
        if not isinstance(shot, Shot):
            return None
        values, notes = self._values(Task((shot,), self.prompt)), self._notes(Task((shot,), self.prompt))
        if shot.cut:
            notes[CUT] = (shot.cut,)
        truth = self.compared.truth.get(self.prompt.id)
        against = self._values(Task((truth, shot), self.prompt, against_truth=True)) if truth else {}
        values = {TRUTH + name: value for name, value in against.items()} | values
        return PictureRow(file=self.name(shot.file), values=values, notes=notes, defect=_defect(shot, pictures))

    def name(self, file: Path) -> str:
        return str(file.relative_to(self.root) if file.is_relative_to(self.root) else file.absolute())

    def _unmeasured(self, pictures: Pictures) -> PictureRow | None:
        shot = pictures.shots[self.prompt.id, self.seed]
        if not isinstance(shot, Shot):
            return None
        return PictureRow(file=self.name(shot.file), values={}, notes={}, defect=_defect(shot, pictures))

    def _values(self, task: Task) -> Values:
        found = self.readings[task.about].values()
        return {name: value for reading in found for name, value in reading.values.items()}

    def _notes(self, task: Task) -> dict[str, tuple[str, ...]]:
        found = self.readings[task.about].values()
        return {name: lines for reading in found for name, lines in reading.notes.items()}


def _failure(reference: Looked, shot: Looked) -> str | None:
    """Why two pictures cannot be compared; a reference that shows nothing would have any variant that does so pass."""
    if not isinstance(reference, Shot):
        return f"reference {reference}"
    if reference.defect:
        return f"reference {reference.defect}"
    if not isinstance(shot, Shot):
        return shot
    return None if shot.size == reference.size else f"size {shot.size} instead of {reference.size}"


def _defect(shot: Shot, pictures: Pictures) -> Defect | None:
    return shot.defect or ("duplicate" if shot.digest in pictures.repeated else None)
