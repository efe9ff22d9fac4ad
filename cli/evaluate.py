"""`edgepress evaluate`: compares candidates with their reference, shows what was lost, checks gates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..api import functions as api
from ..storage.preflight import check_results_folder
from .command import Command, Group, accept_old_names, require_effect
from .console import print_json, show_progress
from .options import (
    PATH,
    json_option,
    model_option,
    output_option,
    ray_option,
    recipe_option,
    restart_option,
    verbosity_options,
)
from .parameter_types import WholeNumber

if TYPE_CHECKING:
    from ..evaluate.results.schema import Results

GATE_FAILED, NOT_MEASURED = 1, 2  # exit codes
RENAMES = {"--reference": "--model", "--truth": "--ground-truth", "--no-resume": "--restart", "--resume": None}


@accept_old_names(RENAMES)
@click.group(cls=Group, invoke_without_command=True)
@recipe_option(required=False, help="A shipped recipe, or a YAML file: what to compare, how, and the gates.")
@model_option(
    "The reference: a pipeline, an export, images, or 'demo'.  [default: what the first candidate was quantized from, "
    "else the recipe's]"
)
@click.option(
    "--candidate",
    "candidates",
    multiple=True,
    metavar="[NAME=]DIR[@DTYPE]|[NAME=]COMPONENT:FILE|[NAME=]URL",
    help="A pipeline (also one that another program quantized), an export, an artifact, images, a .gguf or "
    ".safetensors file in place of a component, or a server; may be repeated.  [default: artifacts/DEVICE/model]",
)
@click.option("--pairs", type=(PATH, PATH), metavar="DIR DIR", help="Compare two folders of images by name.")
@click.option("--prompts", metavar="FILE|SET", help="Prompt set.  [default: the recipe's]")
@click.option(
    "--limit", type=WholeNumber(min=1), metavar="N", help="Prompts to use, from the start.  [default: the recipe's]"
)
@click.option("--seeds", type=WholeNumber(min=1), default=1, show_default=True, help="Images per prompt.")
@click.option("--ground-truth", type=PATH, metavar="DIR", help="Ground-truth images, <prompt id>.png.")
@click.option("--clip", metavar="SPEC", help="CLIP weights, such as local-dir:DIR.  [default: the pipeline's, if any]")
@click.option("--lpips", metavar="DIR", help="Weights for LPIPS: those of AlexNet and of its heads.")
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Compute only this metric; may be repeated.")
@click.option("--baseline", type=PATH, metavar="FILE", help="An earlier results.json, to report changes against.")
@click.option("--history", type=PATH, metavar="FILE", help="SQLite file that every run adds its scores to.")
@click.option("--noise-floor/--no-noise-floor", default=None, help="Run the reference twice.  [default: the recipe's]")
@click.option("--gates/--no-gates", default=True, help="Check the recipe's gates.  [default: check]")
@restart_option
@ray_option
@output_option("Folder of the latest results and of all earlier ones.  [default: evaluation, next to the candidate]")
@json_option
@verbosity_options
@click.pass_context
def evaluate(context: click.Context, /, recipe: str | None, as_json: bool, **options: Any) -> None:
    """Compare candidates with their reference.

    All generate the same prompts from the same noise. All numbers go to results.json; reports in HTML, Markdown and
    JUnit are written next to it, and all of them also to a folder for what was compared: results of other prompts,
    sizes or candidates stay side by side. Exit code 1: a gate failed; 2: something could not be measured. Images and
    scores are cached in artifacts/.work.
    """
    if context.invoked_subcommand:
        evaluate.require_no_options(context)
        return
    plan = api.plan_evaluation(recipe, **options)
    if options["gates"]:
        require_effect("--gates", bool(plan.gates), "the recipe has none" if recipe else "only a recipe has any")
    with show_progress() as progress:
        results = api.run_evaluation(plan, progress)
    _print_results(results, plan.output, as_json, "Error")
    if not as_json:
        from ..evaluate.report.publishing import get_plan_folder

        click.echo(f"Runs of other plans leave {get_plan_folder(results, plan.output)} alone.")
    context.exit(_exit_code(results))


@evaluate.command(cls=Command)
@click.argument("results", type=PATH, metavar="RESULTS.json")
@output_option("Where to write.  [default: next to the results]")
@json_option
@verbosity_options
def report(results: Path, output: Path | None, as_json: bool) -> None:
    """Write the reports of RESULTS.json again."""
    from ..evaluate.report import check_reports, write_report
    from ..evaluate.report.publishing import EVALUATION_FILES
    from ..evaluate.results.results_file import load_results
    from ..storage.result_checksums import record_results

    loaded = load_results(results)
    folder = output or results.parent
    if output:
        check_results_folder(output)
    check_reports(folder)
    with record_results(EVALUATION_FILES, folder):
        write_report(loaded, folder)
    _print_results(loaded, folder, as_json, "Warning")  # the reports are written, which is what was asked for


def _print_results(results: Results, folder: Path, as_json: bool, level: str) -> None:
    from ..evaluate.evaluator import describe_unmeasured

    if as_json:
        print_json(results.model_dump(mode="json"))
    else:
        from rich.console import Console

        from ..evaluate.report import terminal

        console = Console()
        console.print(terminal.render(results))
        console.print(f"Written to {folder}", markup=False, highlight=False, soft_wrap=True)
    for sentence in describe_unmeasured(results):
        click.echo(f"{level}: {sentence}", err=True)


def _exit_code(results: Results) -> int:
    if results.verdict == "failed" or (results.verdict == "inconclusive" and results.strict):
        return GATE_FAILED
    return NOT_MEASURED if results.verdict == "not measured" else 0
