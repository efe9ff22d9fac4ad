"""`edgepress compare`: which of several candidates to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .command import Command
from .console import print_json, show_progress
from .options import json_option, model_option, output_option, recipe_option, restart_option, verbosity_options
from .parameter_types import WholeNumber


@click.command(cls=Command)
@click.argument("candidates", nargs=-1, required=True, metavar="CANDIDATE|RESULTS.json...")
@recipe_option(required=False, help="A shipped recipe, or a YAML file: prompts and sampling. Its gates are left out.")
@model_option(
    "The reference: a pipeline, an export, or 'demo'.  [default: what the first candidate was quantized from]"
)
@click.option("--prompts", metavar="FILE|SET", help="Prompt set.  [default: the recipe's]")
@click.option(
    "--limit", type=WholeNumber(min=1), metavar="N", help="Prompts to use, from the start.  [default: the recipe's]"
)
@click.option("--seeds", type=WholeNumber(min=1), default=1, help="Images per prompt.  [default: 1]")
@click.option("--clip", metavar="SPEC", help="CLIP weights, such as local-dir:DIR.  [default: the pipeline's, if any]")
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Compute only this metric; may be repeated.")
@restart_option
@output_option("Folder of the page and of the results.  [default: as for evaluate, or that of the first results]")
@json_option
@verbosity_options
def compare(candidates: tuple[str, ...], as_json: bool, output: Path | None, **options: Any) -> None:
    """Compare candidates, to choose one: size, fidelity, text, speed, memory, and which device has room for it.

    A CANDIDATE is what `evaluate --candidate` takes: [NAME=]DIR, [NAME=]COMPONENT:FILE or [NAME=]URL. All are evaluated
    first; finished RESULTS.json are only read. Writes compare.html and compare.json.
    """
    from ..api.candidates import compare as compare_candidates

    with show_progress() as progress:
        comparison = compare_candidates(candidates, output=output, progress=progress, **options)
    if as_json:
        print_json(comparison.model_dump(mode="json"))
        return
    from rich.console import Console

    from ..evaluate.comparison import terminal

    Console().print(terminal.render(comparison))
