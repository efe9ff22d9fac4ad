"""Image quality of the variants: all are compared with the fp32 graphs on held-out prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ....common.progress import Progress
from ....evaluate.evaluator import run_evaluation
from ....evaluate.plan import EvaluationOptions, plan_evaluation
from ....evaluate.results.schema import PairResult, Results
from ....evaluate.stats.bootstrap import MeanCI, bootstrap_mean
from ....pipelines.hub import DEMO_PIPELINE
from ....prompts.sets import resolve_prompt_set
from ....recipes.loader import load_recipe
from .variants import BASE

METRICS = ("psnr", "text")


def evaluate_variants(artifacts: Mapping[str, Path], num_prompts: int, folder: Path, progress: Progress) -> Results:
    """Evaluates all variants on the demo's evaluation prompts, with one seed at the demo's native size."""
    options = EvaluationOptions(
        model=str(artifacts[BASE]),
        candidates=tuple(f"{name}={artifact}" for name, artifact in artifacts.items() if name != BASE),
        prompts=str(resolve_prompt_set(DEMO_PIPELINE, "auto", "evaluation")),
        limit=num_prompts,
        metrics=METRICS,
        gates=False,
        noise_floor=False,
        output=folder / "evaluation",
    )
    return run_evaluation(plan_evaluation(load_recipe("pi5"), options), progress)


def compare_paired(results: Results, better: str, base: str, score: str) -> MeanCI | None:
    """Returns the mean paired difference of a score between two variants; None if no pair of images has it.

    Images that are equal to the reference have no PSNR.
    """
    pairs = [(sample.variants[better], sample.variants[base], sample.prompt.id) for sample in results.samples]
    values = [(_get_score(a, score), _get_score(b, score), prompt) for a, b, prompt in pairs]
    differences = [(a - b, prompt) for a, b, prompt in values if a is not None and b is not None]
    return bootstrap_mean([difference for difference, _ in differences], [prompt for _, prompt in differences])


def _get_score(variant: PairResult, score: str) -> float | None:
    """Returns a score of the pair, or else of the variant's image."""
    image_scores = variant.image.values if variant.image else {}
    return variant.values.get(score, image_scores.get(score))
