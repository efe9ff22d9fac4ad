"""`edgepress evaluate`: compares pressed pipelines with their reference, shows what was lost, holds it to limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..common.errors import UserError
from ..common.progress import progress_bars

if TYPE_CHECKING:
    from ..evaluate.plan import EvaluationOptions, EvaluationPlan
    from ..evaluate.results.schema import Results

GATE_FAILED, NOT_MEASURED = 1, 2  # exit codes
FOLDER = click.Path(path_type=Path)
LIMIT_HELP = "Prompts to take, from the set's start.  [the recipe's evaluation.count, else 64; of pictures alone: all]"


@click.group(invoke_without_command=True)
@click.option("--recipe", metavar="NAME|FILE", help="Device or recipe file; says what to compare, how, and the limits.")
@click.option("--model", metavar="PATH", help="Reference pipeline instead of the recipe's; 'demo' is the embedded one.")
@click.option("--reference", metavar="DIR", help="The same; with --candidate no recipe is needed.")
@click.option(
    "--candidate",
    "candidates",
    multiple=True,
    metavar="[NAME=]DIR[@DTYPE]",
    help="A pressed pipeline, exported graphs, an artifact with either, or pictures; may be repeated.  "
    "[artifacts/<device>/model]",
)
@click.option("--pairs", type=(FOLDER, FOLDER), metavar="DIR DIR", help="Compare pictures made elsewhere, by name.")
@click.option("--prompts", metavar="FILE|SET", help="Prompt set.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help=LIMIT_HELP)
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Pictures of each prompt.")
@click.option("--truth", type=FOLDER, metavar="DIR", help="True pictures, <prompt id>.png, to compare all sides with.")
@click.option("--clip", metavar="SPEC", help="CLIP weights, such as local-dir:DIR.  [the pipeline's own, if any]")
@click.option("--lpips", metavar="DIR", help="Weights for LPIPS: AlexNet's and its heads.  [not measured]")
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Measure this alone; may be repeated.")
@click.option("--baseline", type=FOLDER, metavar="FILE", help="An earlier results.json, to show what changed since.")
@click.option("--history", type=FOLDER, metavar="FILE", help="SQLite file that every run adds its scores to.")
@click.option("--noise-floor/--no-noise-floor", default=None, help="Run the reference twice.  [as the recipe says]")
@click.option("--gates/--no-gates", default=True, help="Hold the recipe's limits against what is found.  [yes]")
@click.option("--resume/--no-resume", default=True, help="Use pictures and readings of earlier runs.  [yes]")
@click.option("--output", type=FOLDER, metavar="DIR", help="[evaluation, beside the candidate]")
@click.pass_context
def evaluate(
    context: click.Context,
    /,
    recipe: str | None,
    model: str | None,
    reference: str | None,
    pairs: tuple[Path, Path] | None,
    **options: Any,
) -> None:
    """Compares pressed pipelines with their reference.

    All paint the same prompts from the same noise. Every number goes to results.json; a table is shown, and a page, a
    Markdown summary and JUnit cases are written beside it. Exit code 1: a limit of the recipe is not kept; 2: something
    could not be measured. Pictures and readings are kept in artifacts/.work, so that a second run only shows them.
    """
    if context.invoked_subcommand:
        return
    from ..evaluate.plan import EvaluationOptions
    from ..evaluate.report.previous_files import stash_previous

    if model and reference:
        raise UserError("--model and --reference both name the reference; give one of them.")
    evaluation_options = EvaluationOptions(model=model or reference, **options)
    try:
        plan = _build_plan(recipe, pairs, evaluation_options)
    except UserError:
        if evaluation_options.output:
            stash_previous(evaluation_options.output)
        raise
    context.exit(_run(plan))


@evaluate.command()
@click.argument("results", type=FOLDER, metavar="RESULTS.json")
@click.option("--output", type=FOLDER, metavar="DIR", help="[where the results are]")
def report(results: Path, output: Path | None) -> None:
    """Writes the page, the summary and the cases of RESULTS.json again."""
    from ..evaluate.results.schema import load_results

    run_results = load_results(results)
    _print_results(run_results, output or results.parent)


def _build_plan(recipe: str | None, pairs: tuple[Path, Path] | None, options: EvaluationOptions) -> EvaluationPlan:
    from ..evaluate.plan import plan_evaluation, plan_image_pairs
    from ..recipes.loader import load_recipe
    from ..recipes.schema import Recipe

    loaded_recipe = load_recipe(recipe) if recipe else Recipe(device="custom")
    if pairs:
        if options.model or options.candidates or options.seeds > 1:
            raise UserError("--pairs names both sides, a picture each; leave --reference, --candidate and --seeds out.")
        return plan_image_pairs(loaded_recipe, *pairs, options)
    if recipe or (options.model and options.candidates):
        return plan_evaluation(loaded_recipe, options)
    raise UserError("Say what to compare: --recipe NAME, --reference DIR and --candidate DIR, or --pairs DIR DIR.")


def _run(plan: EvaluationPlan) -> int:
    """Evaluates, shows, and gives the exit code."""
    from ..evaluate import evaluator

    with progress_bars() as progress:
        results = evaluator.run_evaluation(plan, progress)
    _print_results(results, plan.output)
    for sentence in _describe_unmeasured(results):
        click.echo(f"Error: {sentence}", err=True)
    return _exit_code(results)


def _print_results(results: Results, folder: Path) -> None:
    from rich.console import Console

    from ..evaluate import report
    from ..evaluate.report import terminal

    report.write_report(results, folder)
    console = Console()
    console.print(terminal.render(results))
    console.print(f"written to {folder}", markup=False, highlight=False, soft_wrap=True)


def _exit_code(results: Results) -> int:
    if results.verdict == "failed" or (results.verdict == "inconclusive" and results.strict):
        return GATE_FAILED
    return NOT_MEASURED if results.verdict == "not measured" else 0


def _describe_unmeasured(results: Results) -> list[str]:
    """What stood in the way of measuring all that was wanted."""
    from ..evaluate.report.formatting import pluralize

    messages = [
        f"{pluralize(len(summary.failures), 'pair')} of {name} could not be compared, the first: {first.prompt}, "
        f"seed {first.seed}: {first.failure}."
        for name, summary in results.variants.items()
        for first in summary.failures[:1]
    ]
    gates = [gate for gate in results.gates if gate.verdict == "not measured"]
    return messages + [f"The gate {gate.name} of {gate.variant} was not measured: {gate.reason}." for gate in gates]
