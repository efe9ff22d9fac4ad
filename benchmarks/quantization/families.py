"""Tries every text-to-image pipeline class of diffusers on a tiny random pipeline, and writes a table into docs/.

Run by `make bench-families`. Results are stored in build/families: CLASSES tries some again, and --missing those that
have none; the table is made of all.
"""

from __future__ import annotations

import json
import logging
import math
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import click

from ...common.markdown_table import render_table
from ...evaluate.stats.bootstrap import MeanCI
from ..common.report import write_section
from .family_catalog import list_text_to_image_classes
from .family_trial import (
    COLUMNS,
    COMPARES,
    EXPORTS,
    GENERATES,
    NUM_SOLVED,
    PROMPTS,
    QUANTIZING,
    SIZES,
    STEPS,
    TINY,
    Trial,
    run_trial,
)
from .processor_packages import FOLDER as PACKAGES
from .processor_packages import import_processor_packages

MARK = "●"
MAX_SHOWN = 150  # characters of a reason
MAX_NAMES = 12  # of classes that share a reason; more are those without a mark
RESULTS = PACKAGES.parent / "families"
INTRODUCTION = """\
diffusers {version} has {listed} text-to-image classes that need no image, found by introspection. {tried} were tried on
a tiny pipeline of the genuine classes with random weights, with guidance off: {quantizing} can be quantized, opened
again and evaluated, {exporting} be exported, and {generating} generate without torch.

*Reopens equal*: `from_pretrained` of the result generates the latents of the original with the dequantized weights in
place of its own. *Exports ONNX*: all graphs in INT4, compared with torch. *Generates without torch*: in a process where
torch, diffusers and transformers cannot be imported. *Error*: squared error of the velocities with
`best` over that with `rtn`, all from the latents of the original in {steps} steps: geometric mean over {images} images
({prompts} prompts, each with noise of its own; of described classes in {sizes} sizes), with its paired 95 % interval by
Student's t. Layers were solved on {solved} other prompts. On random weights it says that a class is calibrated rightly,
and not how well a trained model fares. {verdict}"""


@click.command(help=__doc__)
@click.argument("classes", nargs=-1)
@click.option("--missing", is_flag=True, help="Try only classes without a stored result.")
def main(classes: tuple[str, ...], missing: bool) -> None:
    import_processor_packages()
    listed = list_text_to_image_classes()
    for name in classes or listed:
        if not (missing and _locate(name).exists()):
            trial = _run_quietly(name)
            _store(trial)
            click.echo(_describe(trial))
    tried = [name for name in listed if _locate(name).exists()]
    write_section("families", "make bench-families", _render([_load(name) for name in tried], listed))


def _run_quietly(name: str) -> Trial:
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        trial = run_trial(name, Path(folder))
        trial.reasons = {column: text.replace(f"{folder}/", "") for column, text in trial.reasons.items()}
        return trial


# ---------------------------------------------------------------- stored results


def _locate(name: str) -> Path:
    return RESULTS / f"{name}.json"


def _store(trial: Trial) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    errors = trial.errors.model_dump() if trial.errors else None
    _locate(trial.name).write_text(json.dumps(asdict(trial) | {"errors": errors}, indent=1), "utf-8")


def _load(name: str) -> Trial:
    stored = json.loads(_locate(name).read_text("utf-8"))
    errors = stored.pop("errors")
    return Trial(**stored, errors=MeanCI.model_validate(errors) if errors else None)


# ---------------------------------------------------------------- table


def _describe(trial: Trial) -> str:
    failed = [f"{column} failed: {reason}" for column, reason in trial.reasons.items() if reason]
    return f"{trial.name}: " + (failed[0] if failed else f"works, {trial.layers} layers")


def _render(trials: Sequence[Trial], listed: Sequence[str]) -> str:
    """Renders the section.

    Args:
        trials: The results.
        listed: All classes that could be tried.
    """
    import diffusers

    introduction = INTRODUCTION.format(
        version=diffusers.__version__,
        listed=len(listed),
        tried=len(trials),
        quantizing=sum(trial.works(*QUANTIZING) for trial in trials),
        exporting=sum(trial.works(EXPORTS) for trial in trials),
        generating=sum(trial.works(GENERATES) for trial in trials),
        steps=STEPS,
        images=f"{len(PROMPTS)} or {len(PROMPTS) * len(SIZES)}",
        prompts=len(PROMPTS),
        sizes=len(SIZES),
        solved=NUM_SOLVED,
        verdict=_compare_methods(trials),
    )
    columns = [column for column in COLUMNS if column not in (TINY, COMPARES)]
    rows = [_make_row(trial, columns) for trial in trials]
    table = render_table(["class", *columns, "layers", "error"], rows)
    untried = sorted(set(listed) - {trial.name for trial in trials})
    missing = [f"Not tried yet: {', '.join(f'`{name}`' for name in untried)}."] if untried else []
    return "\n\n".join(["## Pipeline classes", introduction, table, *missing, *_list_reasons(trials)])


def _make_row(trial: Trial, columns: Sequence[str]) -> list[str]:
    marks = [_mark(trial, column) for column in columns]
    return [f"`{trial.name}`", *marks, str(trial.layers or ""), _format_ratio(trial.errors)]


def _mark(trial: Trial, column: str) -> str:
    """Returns the mark of a column; empty if it was not tried, for another reason than that an earlier one failed."""
    return MARK if trial.works(column) else "–" if any(trial.reasons.values()) else ""


def _format_ratio(errors: MeanCI | None) -> str:
    if errors is None or errors.low is None or errors.high is None:
        return ""
    mean, low, high = (math.exp(value) for value in (errors.mean, errors.low, errors.high))
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def _compare_methods(trials: Sequence[Trial]) -> str:
    """Says in how many classes the interval of the error is below, around and above that of rounding."""
    intervals = [(trial.errors.low, trial.errors.high) for trial in trials if trial.errors]
    bounded = [(low, high) for low, high in intervals if low is not None and high is not None]
    better, worse = sum(high < 0 for _, high in bounded), sum(low > 0 for low, _ in bounded)
    return (
        f"The whole interval is below 1 in {better} of {len(bounded)} classes, above 1 in {worse}, and around 1 in "
        f"{len(bounded) - better - worse}."
    )


def _list_reasons(trials: Sequence[Trial]) -> Iterator[str]:
    """Yields why classes cannot be quantized, and why the others cannot be exported or generate."""
    failed: dict[tuple[str, str], list[str]] = {}
    for trial in trials:
        for column, reason in trial.reasons.items():
            if reason:
                text = reason.replace(f"The class {trial.name}", "The class").replace(trial.name, "the class")
                text = text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
                failed.setdefault((column, text), []).append(trial.name)
    lines = [
        f"- {column}: {reason}"
        if len(names) > MAX_NAMES
        else f"- {column}, {', '.join(f'`{n}`' for n in names)}: {reason}"
        for (column, reason), names in failed.items()
    ]
    if lines:
        yield "Why the others do not:"
        yield "\n".join(lines)


if __name__ == "__main__":
    main()
