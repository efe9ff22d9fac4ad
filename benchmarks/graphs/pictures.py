"""What each variant paints: all evaluated together, against the fp32 graphs, on held-out prompts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ... import recipe as recipes
from ...evaluate.bootstrap import Mean, mean_of
from ...evaluate.plan import Options, plan_for
from ...evaluate.results import Results, VariantRow
from ...evaluate.run import evaluate
from ...progress import Progress
from ...sources import DEMO, prompt_file
from .variants import BASE

METRICS = ("psnr", "text")


def scored(artifacts: Mapping[str, Path], prompts: int, folder: Path, progress: Progress) -> Results:
    """Pictures of the demo's evaluation prompts, one seed, in the pipeline's own size."""
    options = Options(
        model=str(artifacts[BASE]),
        candidates=tuple(f"{name}={artifact}" for name, artifact in artifacts.items() if name != BASE),
        prompts=str(prompt_file(DEMO, "own", "evaluation")),
        limit=prompts,
        metrics=METRICS,
        gates=False,
        noise_floor=False,
        output=folder / "evaluation",
    )
    return evaluate(plan_for(recipes.load("pi5"), options), progress)


def gained(results: Results, better: str, base: str, score: str) -> Mean | None:
    """The paired difference of a score between two variants; pictures equal to the reference have no PSNR."""
    pairs = [(row.variants[better], row.variants[base], row.prompt.id) for row in results.rows]
    values = [(_value(a, score), _value(b, score), prompt) for a, b, prompt in pairs]
    known = [(a - b, prompt) for a, b, prompt in values if a is not None and b is not None]
    return mean_of([difference for difference, _ in known], [prompt for _, prompt in known])


def _value(variant: VariantRow, score: str) -> float | None:
    """A score of a pair, or else of the variant's picture."""
    picture = variant.picture.values if variant.picture else {}
    return variant.values.get(score, picture.get(score))
