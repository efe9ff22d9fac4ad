"""Builds the samples of an evaluation: which images are compared, which metrics apply, and the results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...prompts.prompt import Prompt
from ..generation.cost import BatchCost
from ..images.defects import Defect, find_duplicate_digests
from ..images.image_file import ImageRecord, LoadFailure
from ..metrics.base import GROUND_TRUTH_PREFIX, MetricResult, ScoreValues
from ..results.locations import relate_path
from ..results.schema import TRUNCATED, ImageResult, PairResult, SampleKey, SampleResult
from .runner import ScoreTask, TaskKey

LoadedImage = ImageRecord | LoadFailure

Notes = dict[str, tuple[str, ...]]
"""Evidence by name; see `metrics.base.MetricResult`."""

ResultsByTask = Mapping[TaskKey, Mapping[str, MetricResult]]
"""Results of metrics by task and name of the metric."""


@dataclass(frozen=True)
class ImageSet:
    """The images of the reference or of a candidate.

    Attributes:
        records: The image of each sample, or why it could not be read.
        duplicates: Content digests that occur for several prompts.
        costs: What generating the batches cost, as far as that is known.
        is_comparable: Whether the images are of the reference's noise, so that they can be compared with its images.
    """

    records: Mapping[SampleKey, LoadedImage]
    duplicates: frozenset[str]
    costs: tuple[BatchCost, ...] = ()
    is_comparable: bool = True


@dataclass(frozen=True)
class ComparisonSet:
    """All images of an evaluation.

    Attributes:
        reference: Images of the reference.
        variants: Images of the candidates, by name.
        noise_floor: Images of the reference, generated a second time.
        ground_truth: Ground-truth images by prompt id.
    """

    reference: ImageSet
    variants: Mapping[str, ImageSet]
    noise_floor: ImageSet | None
    ground_truth: Mapping[str, ImageRecord]

    @property
    def compared_sets(self) -> list[ImageSet]:
        """All sets that are compared with the reference."""
        return [*self.variants.values(), *([self.noise_floor] if self.noise_floor else [])]


def make_image_set(
    records: Mapping[SampleKey, LoadedImage], costs: Sequence[BatchCost] = (), is_comparable: bool = True
) -> ImageSet:
    """Creates an image set, and finds its duplicates; see `ImageSet` for the arguments."""
    digests = [(key[0], record.digest) for key, record in records.items() if isinstance(record, ImageRecord)]
    return ImageSet(records, frozenset(find_duplicate_digests(digests)), tuple(costs), is_comparable)


def make_tasks(prompt: Prompt, seed: int, images: ComparisonSet) -> Iterator[ScoreTask]:
    """Yields the tasks of one sample; none if its reference cannot be read."""
    reference = images.reference.records[prompt.id, seed]
    if not isinstance(reference, ImageRecord):
        return
    sets = [(image_set, image_set.records[prompt.id, seed]) for image_set in images.compared_sets]
    scored = [(s, r) for s, r in sets if isinstance(r, ImageRecord) and _find_failure(reference, r) is None]
    for record in (reference, *(record for _, record in scored)):
        yield ScoreTask((record,), prompt)
        if prompt.id in images.ground_truth:
            yield ScoreTask((images.ground_truth[prompt.id], record), prompt, against_ground_truth=True)
    yield from (ScoreTask((reference, record), prompt) for image_set, record in scored if image_set.is_comparable)


def build_sample(prompt: Prompt, seed: int, images: ComparisonSet, results: ResultsByTask, root: Path) -> SampleResult:
    """Builds the result of one sample.

    Args:
        prompt: The prompt.
        seed: The seed.
        images: All images of the evaluation.
        results: Results of the sample's tasks.
        root: Folder that the names of image files are relative to.
    """
    builder = _SampleBuilder(prompt, seed, images, results, root)
    ground_truth = images.ground_truth.get(prompt.id)
    return SampleResult(
        prompt=prompt,
        seed=seed,
        ground_truth=builder.format_path(ground_truth.file) if ground_truth else None,
        reference=builder.build_image(images.reference),
        variants={name: builder.build_pair(image_set) for name, image_set in images.variants.items()},
        noise_floor=builder.build_pair(images.noise_floor) if images.noise_floor else None,
    )


@dataclass(frozen=True)
class _SampleBuilder:
    prompt: Prompt
    seed: int
    images: ComparisonSet
    results: ResultsByTask
    root: Path

    def build_pair(self, image_set: ImageSet) -> PairResult:
        """Compares an image with the reference's."""
        reference, record = (s.records[self.prompt.id, self.seed] for s in (self.images.reference, image_set))
        failure = _find_failure(reference, record)
        if failure or not (isinstance(reference, ImageRecord) and isinstance(record, ImageRecord)):
            image = self.build_image(image_set, is_scored=False)
            return PairResult(identical=False, values={}, image=image, failure=failure)
        if not image_set.is_comparable:
            return PairResult(identical=False, values={}, image=self.build_image(image_set))
        task = ScoreTask((reference, record), self.prompt)
        return PairResult(
            identical=reference.digest == record.digest,
            values=self._collect_values(task),
            image=self.build_image(image_set),
            notes=self._collect_notes(task),
        )

    def build_image(self, image_set: ImageSet, is_scored: bool = True) -> ImageResult | None:
        """Returns an image with its scores, or None if it could not be read."""
        record = image_set.records[self.prompt.id, self.seed]
        if not isinstance(record, ImageRecord):
            return None
        return ImageResult(
            file=self.format_path(record.file),
            values=self._collect_image_values(record) if is_scored else {},
            notes=self._collect_image_notes(record) if is_scored else {},
            defect=_get_defect(record, image_set),
        )

    def format_path(self, file: Path) -> str:
        return relate_path(file, self.root)

    def _collect_image_values(self, record: ImageRecord) -> ScoreValues:
        values = self._collect_values(ScoreTask((record,), self.prompt))
        task = self._get_ground_truth_task(record)
        if task is None:
            return values
        return {GROUND_TRUTH_PREFIX + name: value for name, value in self._collect_values(task).items()} | values

    def _collect_values(self, task: ScoreTask) -> ScoreValues:
        results = self.results[task.key].values()
        return {name: value for result in results for name, value in result.values.items()}

    def _collect_image_notes(self, record: ImageRecord) -> Notes:
        notes = self._collect_notes(ScoreTask((record,), self.prompt))
        task = self._get_ground_truth_task(record)
        if task:
            notes |= {GROUND_TRUTH_PREFIX + name: lines for name, lines in self._collect_notes(task).items()}
        if record.truncation_notice:
            notes[TRUNCATED] = (record.truncation_notice,)
        return notes

    def _collect_notes(self, task: ScoreTask) -> Notes:
        results = self.results[task.key].values()
        return {name: lines for result in results for name, lines in result.notes.items()}

    def _get_ground_truth_task(self, record: ImageRecord) -> ScoreTask | None:
        ground_truth = self.images.ground_truth.get(self.prompt.id)
        if ground_truth is None:
            return None
        return ScoreTask((ground_truth, record), self.prompt, against_ground_truth=True)


def _find_failure(reference: LoadedImage, image: LoadedImage) -> str | None:
    """Returns why two images cannot be compared, or None.

    A defective reference is a failure, because a variant with the same defect would otherwise pass.
    """
    if not isinstance(reference, ImageRecord):
        return f"reference {reference}"
    if reference.defect:
        return f"reference {reference.defect}"
    if not isinstance(image, ImageRecord):
        return image
    return None if image.size == reference.size else f"size {image.size} instead of {reference.size}"


def _get_defect(record: ImageRecord, image_set: ImageSet) -> Defect | None:
    return record.defect or ("duplicate" if record.digest in image_set.duplicates else None)
