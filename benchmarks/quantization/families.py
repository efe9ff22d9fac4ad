"""Tries every text-to-image pipeline class of diffusers on a tiny random pipeline, and writes a table into docs/.

Run by `make bench-families`. CLASSES limits it to some, and writes nothing.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import click

from ...common.markdown_table import render_table
from ..common.report import write_section
from .family_catalog import list_text_to_image_classes
from .family_trial import COLUMNS, Trial, run_trial

MARK = "●"


@click.command(help=__doc__)
@click.argument("classes", nargs=-1)
@click.option("--jobs", type=click.IntRange(1), default=1, help="Number of classes that are tried at once.")
def main(classes: tuple[str, ...], jobs: int) -> None:
    import diffusers

    trials = []
    names = classes or tuple(list_text_to_image_classes())
    with ProcessPoolExecutor(jobs, get_context("spawn")) as executor:
        for trial in executor.map(_run_quietly, names):
            trials.append(trial)
            click.echo(_describe(trial))
    working = [trial for trial in trials if not any(trial.reasons.values())]
    body = "\n\n".join(
        [
            "## Pipeline classes",
            f"Every text-to-image class of diffusers {diffusers.__version__} that needs no image, found by "
            f"introspection: {len(working)} of {len(trials)} work in all columns. Each was tried on a tiny pipeline of "
            "the genuine classes with random weights. *Reopens equal*: `from_pretrained` of the result generates the "
            "latents of the original with the dequantized weights in place of its own. *Error*: mean output error of "
            "the quantized layers on the tokens of calibration with `best`, as a share of that with `rtn`.",
            render_table(["class", *COLUMNS[1:], "layers", "error"], list(map(_make_row, trials))),
            *_list_reasons(trials),
        ]
    )
    click.echo(body)
    if not classes:
        write_section("families", "make bench-families", body)


def _run_quietly(name: str) -> Trial:
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        trial = run_trial(name, Path(folder))
        trial.reasons = {column: text.replace(f"{folder}/", "") for column, text in trial.reasons.items()}
        return trial


def _describe(trial: Trial) -> str:
    failed = next(((column, reason) for column, reason in trial.reasons.items() if reason), None)
    return f"{trial.name}: " + (f"{failed[0]} failed: {failed[1]}" if failed else f"works, {trial.layers} layers")


def _make_row(trial: Trial) -> list[str]:
    marks = [MARK if trial.reasons.get(column) == "" else "–" for column in COLUMNS[1:]]
    ratio = "" if trial.ratio is None else f"{trial.ratio:.2f}"
    return [f"`{trial.name}`", *marks, str(trial.layers or ""), ratio]


def _list_reasons(trials: list[Trial]) -> list[str]:
    """Lists why classes do not work, one a line."""
    lines = [
        f"- `{trial.name}`, {column}: {reason}"
        for trial in trials
        for column, reason in trial.reasons.items()
        if reason
    ]
    return ["Why the others do not:", "\n".join(lines)] if lines else []


if __name__ == "__main__":
    main()
