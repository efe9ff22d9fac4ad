"""Puts rows together: which pictures are compared, what is to be measured, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...prompts.prompt import Prompt
from ..images.defects import Defect, find_duplicate_digests
from ..images.image_file import ImageRecord, LoadFailure
from ..metrics.base import GROUND_TRUTH_PREFIX, MetricResult, ScoreValues
from ..results.schema import TRUNCATED, ImageResult, PairResult, SampleResult
from .runner import ScoreTask, TaskKey

SampleKey = tuple[str, int]  # prompt id and seed
LoadedImage = ImageRecord | LoadFailure
ResultsByTask = Mapping[TaskKey, Mapping[str, MetricResult]]  # by metric


@dataclass(frozen=True)
class ImageSet:
    """What one side has for a prompt and seed; `repeated` are contents that several of its prompts share."""

    records: Mapping[SampleKey, LoadedImage]
    duplicates: frozenset[str]


@dataclass(frozen=True)
class ComparisonSet:
    """The pictures of the reference, of the variants by name, of the reference run again; true ones by prompt id."""

    reference: ImageSet
    variants: Mapping[str, ImageSet]
    noise_floor: ImageSet | None
    ground_truth: Mapping[str, ImageRecord]

    @property
    def compared_sets(self) -> list[ImageSet]:
        """All that is compared with the reference."""
        return [*self.variants.values(), *([self.noise_floor] if self.noise_floor else [])]


def make_image_set(shots: Mapping[SampleKey, LoadedImage]) -> ImageSet:
    contents = [(asked[0], shot.digest) for asked, shot in shots.items() if isinstance(shot, ImageRecord)]
    return ImageSet(shots, frozenset(find_duplicate_digests(contents)))


def make_tasks(prompt: Prompt, seed: int, compared: ComparisonSet) -> Iterator[ScoreTask]:
    """What is to be measured for one row."""
    reference = compared.reference.records[prompt.id, seed]
    if not isinstance(reference, ImageRecord):
        return
    others = [pictures.records[prompt.id, seed] for pictures in compared.compared_sets]
    fit = [shot for shot in others if isinstance(shot, ImageRecord) and _find_failure(reference, shot) is None]
    for shot in (reference, *fit):
        yield ScoreTask((shot,), prompt)
        if prompt.id in compared.ground_truth:
            yield ScoreTask((compared.ground_truth[prompt.id], shot), prompt, against_ground_truth=True)
    yield from (ScoreTask((reference, shot), prompt) for shot in fit)


def build_row(prompt: Prompt, seed: int, compared: ComparisonSet, readings: ResultsByTask, root: Path) -> SampleResult:
    """The row of a prompt and seed, given the readings of its tasks; files are named relative to `root`."""
    build = _SampleBuilder(prompt, seed, compared, readings, root)
    return SampleResult(
        prompt=prompt,
        seed=seed,
        ground_truth=build.format_path(compared.ground_truth[prompt.id].file)
        if prompt.id in compared.ground_truth
        else None,
        reference=build.build_image(compared.reference),
        variants={name: build.build_pair(pictures) for name, pictures in compared.variants.items()},
        noise_floor=build.build_pair(compared.noise_floor) if compared.noise_floor else None,
    )


@dataclass(frozen=True)
class _SampleBuilder:
    prompt: Prompt
    seed: int
    compared: ComparisonSet
    readings: ResultsByTask
    root: Path

    def build_pair(self, pictures: ImageSet) -> PairResult:
        reference, shot = (side.records[self.prompt.id, self.seed] for side in (self.compared.reference, pictures))
        failure = _find_failure(reference, shot)
        if failure or not (isinstance(reference, ImageRecord) and isinstance(shot, ImageRecord)):
            return PairResult(identical=False, values={}, image=self._build_unscored_image(pictures), failure=failure)
        return PairResult(
            identical=reference.digest == shot.digest,
            values=self._collect_values(ScoreTask((reference, shot), self.prompt)),
            image=self.build_image(pictures),
        )

    def build_image(self, pictures: ImageSet) -> ImageResult | None:
        """A picture with its scores, or None where there is none to be read."""
        shot = pictures.records[self.prompt.id, self.seed]
        if not isinstance(shot, ImageRecord):
            return None
        values, notes = (
            self._collect_values(ScoreTask((shot,), self.prompt)),
            self._collect_notes(ScoreTask((shot,), self.prompt)),
        )
        if shot.truncation_notice:
            notes[TRUNCATED] = (shot.truncation_notice,)
        truth = self.compared.ground_truth.get(self.prompt.id)
        against = (
            self._collect_values(ScoreTask((truth, shot), self.prompt, against_ground_truth=True)) if truth else {}
        )
        values = {GROUND_TRUTH_PREFIX + name: value for name, value in against.items()} | values
        return ImageResult(
            file=self.format_path(shot.file), values=values, notes=notes, defect=_get_defect(shot, pictures)
        )

    def format_path(self, file: Path) -> str:
        return str(file.relative_to(self.root) if file.is_relative_to(self.root) else file.absolute())

    def _build_unscored_image(self, pictures: ImageSet) -> ImageResult | None:
        shot = pictures.records[self.prompt.id, self.seed]
        if not isinstance(shot, ImageRecord):
            return None
        return ImageResult(file=self.format_path(shot.file), values={}, notes={}, defect=_get_defect(shot, pictures))

    def _collect_values(self, task: ScoreTask) -> ScoreValues:
        found = self.readings[task.key].values()
        return {name: value for reading in found for name, value in reading.values.items()}

    def _collect_notes(self, task: ScoreTask) -> dict[str, tuple[str, ...]]:
        found = self.readings[task.key].values()
        return {name: lines for reading in found for name, lines in reading.notes.items()}


def _find_failure(reference: LoadedImage, shot: LoadedImage) -> str | None:
    """Why two pictures cannot be compared; a reference that shows nothing would have any variant that does so pass."""
    if not isinstance(reference, ImageRecord):
        return f"reference {reference}"
    if reference.defect:
        return f"reference {reference.defect}"
    if not isinstance(shot, ImageRecord):
        return shot
    return None if shot.size == reference.size else f"size {shot.size} instead of {reference.size}"


def _get_defect(shot: ImageRecord, pictures: ImageSet) -> Defect | None:
    return shot.defect or ("duplicate" if shot.digest in pictures.duplicates else None)
