"""`edgepress evaluate`: compares a pressed pipeline with its reference, and shows what was lost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..errors import UserError
from ..progress import bars

if TYPE_CHECKING:
    from .plan import Plan


@click.command()
@click.option("--recipe", metavar="NAME|FILE", help="Device or recipe file; says what to compare and how.")
@click.option("--model", metavar="PATH", help="Reference pipeline instead of the recipe's; 'demo' is the embedded one.")
@click.option("--reference", metavar="DIR", help="Reference pipeline; with --candidate no recipe is needed.")
@click.option("--candidate", type=click.Path(path_type=Path), metavar="DIR", help="[artifacts/<device>/model]")
@click.option("--prompts", type=click.Path(path_type=Path), metavar="FILE", help="Prompt set (JSON lines).")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Prompts to paint, from the set's start.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Pictures of each prompt.")
@click.option("--output", type=click.Path(path_type=Path), metavar="DIR", help="[evaluation, beside the candidate]")
def evaluate(
    recipe: str | None,
    model: str | None,
    reference: str | None,
    candidate: Path | None,
    prompts: Path | None,
    limit: int | None,
    seeds: int,
    output: Path | None,
) -> None:
    """Compares a pressed pipeline with its reference.

    Both paint the same prompts from the same noise. PSNR, SSIM and the accuracy of painted text go to results.json and
    are shown as tables. Pictures are kept in artifacts/.work/pictures, so that a second run only measures.
    """
    from ..recipe import Recipe, load
    from .plan import plan_for

    if model and reference:
        raise UserError("--model and --reference both name the reference; give one of them.")
    if not recipe and not ((model or reference) and candidate):
        raise UserError("Say what to compare: --recipe NAME, or --reference DIR and --candidate DIR.")
    settled = load(recipe) if recipe else Recipe(device="custom")
    plan = plan_for(
        settled,
        model=model or reference,
        candidate=candidate,
        prompts=prompts,
        limit=limit,
        seeds=seeds,
        output=output,
    )
    _run(plan)


def _run(plan: Plan) -> None:
    from rich.console import Console

    from . import run, table

    with bars() as progress:
        results = run.evaluate(plan, progress)
    console = Console()
    console.print(table.render(results))
    console.print(f"written to {plan.output / run.RESULTS}", markup=False, highlight=False, soft_wrap=True)
