"""What 4 bits cost the demo pipeline: rounding alone against AWQ, in PSNR and in words that can be read.

`make bench-quality`. All held-out evaluation prompts are painted by the reference and by both variants.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from .. import recipe as recipes
from ..evaluate.bootstrap import Mean, mean_of
from ..evaluate.plan import plan_for
from ..evaluate.results import ALL, Group, Results
from ..evaluate.run import evaluate
from ..progress import Progress, bars
from ..quantize.press import press
from ..sources import DEMO
from .report import table, write_section

METHODS = ("rtn", "awq")
PAIRED = 64  # prompts of the paired comparison


def measure(method: str, folder: Path, progress: Progress) -> Results:
    """The evaluation of one method on every evaluation prompt of the demo."""
    recipe = recipes.load("orin")
    recipe = recipe.model_copy(update={"quantize": recipe.quantize.model_copy(update={"method": method})})
    pressed = press(recipe, DEMO, folder / method, progress)
    return evaluate(plan_for(recipe, candidate=pressed.output / "model", limit=10**6), progress)


def gain(better: Results, base: Results, prompts: int) -> Mean:
    """The paired difference in PSNR over the first prompts, in dB."""
    pairs = zip(better.rows[:prompts], base.rows[:prompts], strict=True)
    measured = [(a.values["psnr"], b.values["psnr"], a.prompt.id) for a, b in pairs]
    differences = [(a - b, prompt) for a, b, prompt in measured if a is not None and b is not None]
    found = mean_of([difference for difference, _ in differences], [prompt for _, prompt in differences])
    if found is None:
        raise click.ClickException("no pair of pictures differed: nothing was compared")
    return found


def psnr_table(results: dict[str, Results]) -> str:
    rows = []
    for method, found in results.items():
        summary = found.summary.groups[0].pairs
        psnr, ssim = summary["psnr"], summary["ssim"]
        rows.append([method, _interval(psnr.mean, 1, 2), f"{psnr.worst:.2f}", _interval(ssim.mean, 1, 4)])
    return table(["method", "PSNR dB (95 %)", "worst", "SSIM (95 %)"], rows)


def text_table(results: dict[str, Results]) -> str:
    """Reference, variants and drops, for each group that the prompts make."""
    first = next(iter(results.values()))
    names = [group.name for group in first.summary.groups if _shown(group)]
    rows = [_text_row(name, results, score) for score in ("exact", "text_accuracy", "ned") for name in names]
    columns = [f"{method} (drop, 95 %)" for method in results]
    return table(["score %", "prompts", "pictures", "reference", *columns], rows)


def _shown(group: Group) -> bool:
    return group.name == ALL or group.name.split(":")[0] in ("language", "size", "lines", "pattern")


def _text_row(name: str, results: dict[str, Results], score: str) -> list[str]:
    groups = [next(g for g in found.summary.groups if g.name == name) for found in results.values()]
    reference = groups[0].scores[score].reference
    drops = [f"{g.scores[score].variant.mean:.1%} ({_interval(g.scores[score].drop, 100, 1)})" for g in groups]
    return [score, name, str(groups[0].pictures), f"{reference.mean:.1%}", *drops]


def _interval(mean: Mean, factor: float, digits: int) -> str:
    if mean.low is None or mean.high is None:
        return f"{factor * mean.mean:.{digits}f}"
    low, high = factor * mean.low, factor * mean.high
    return f"{factor * mean.mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


@click.command(help=__doc__)
def main() -> None:
    with tempfile.TemporaryDirectory() as folder, bars() as progress:
        results = {method: measure(method, Path(folder), progress) for method in METHODS}
    difference = gain(results["awq"], results["rtn"], PAIRED)
    body = "\n\n".join(
        [
            "## What 4 bits cost the demo",
            "Transformer and text encoder at 4.156 bits a weight, all held-out evaluation prompts, one seed, computed "
            "in float32; intervals are bootstrapped over prompts.",
            psnr_table(results),
            f"**AWQ over RTN, paired over the first {PAIRED} prompts: {_interval(difference, 1, 2)} dB.**",
            "`exact` is the share of pictures whose whole text OCR reads exactly.",
            text_table(results),
        ]
    )
    write_section("quality", "make bench-quality", body)
    click.echo(body)


if __name__ == "__main__":
    main()
