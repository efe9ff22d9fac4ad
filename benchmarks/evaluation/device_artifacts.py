"""Makes the demo's artifact for every recipe, as `make artifact` does, and compares its images with torch.

Run by `make bench-artifacts`. Each command runs in a process of its own. An artifact must be described and verified in
the end, or a command must refuse with a reason, which the table has. Finished work is kept, so that an interrupted run
goes on.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...api.verification import verify
from ...common.markdown_table import render_table
from ...demo.signs.ground_truth import NO_FONTS_EXIT_CODE
from ...evaluate.results.results_file import load_results
from ...evaluate.results.schema import ImageResult, Results
from ...evaluate.stats.bootstrap import bootstrap_mean
from ...numerics.psnr import compute_psnr
from ...recipes.loader import load_recipe, recipe_names
from ...recipes.schema import Recipe
from ...storage.layout import EVALUATION_RESULTS, RKNN, WORK, Artifact
from ...storage.pipeline_config import read_onnx_config, read_rknn_config
from ..common.report import format_mean, write_section

EDGEPRESS = (sys.executable, "-m", "edgepress")
GROUND_TRUTH = "edgepress.demo.signs.ground_truth"
PROMISED_DB = 45.0  # of exports in floats, against torch with the same weights
HEADER = [
    "recipe",
    "export",
    "precision",
    "files verified",
    "one image, same weights, dB",
    "images",
    "against `model/` in torch, dB",
    "worst",
    "gates",
]


@dataclass(frozen=True)
class FailedCommand:
    """A command that did not succeed.

    Attributes:
        command: Its name.
        reason: The last line that it wrote.
    """

    command: str
    reason: str


@dataclass(frozen=True)
class ExportImages:
    """Images of an export against those of torch with the same quantized weights.

    Attributes:
        psnr: In dB, of the images that differ.
        prompts: Their prompts.
        num_identical: Number of images that are equal in every pixel.
    """

    psnr: list[float]
    prompts: list[str]
    num_identical: int


def list_commands(recipe: Recipe, artifact: Artifact, ground_truth: Path | None, limit: int) -> list[list[str]]:
    """The commands of `make artifact`, without edgepress itself.

    Args:
        recipe: The recipe.
        artifact: The artifact to make.
        ground_truth: Folder of the ground-truth images.
        limit: Number of prompts to evaluate; 0 for the recipe's.
    """
    shared = ["--recipe", recipe.device, "--output"]
    path = str(artifact.path)
    evaluation = ["evaluate", "--recipe", recipe.device, "--candidate", path, "--output", str(artifact.evaluation)]
    return [
        ["quantize", *shared, path],
        ["export", "onnx", *shared, path],
        *([["export", "rknn", *shared, path]] if recipe.rknn else []),
        [
            *evaluation,
            *(["--ground-truth", str(ground_truth)] if ground_truth else []),
            *(["--limit", str(limit)] if limit else []),
        ],
        ["describe", path, "--license", "apache-2.0"],
    ]


def draw_ground_truth(folder: Path) -> Path | None:
    """Draws the ground-truth images of the evaluation set, as `make evaluate` does; None where there are no fonts."""
    drawn = subprocess.run([sys.executable, "-m", GROUND_TRUTH, "--output", str(folder)])
    if drawn.returncode not in (0, NO_FONTS_EXIT_CODE):
        raise click.ClickException("Drawing the ground truth failed.")
    return folder if drawn.returncode == 0 else None


def run_commands(commands: Sequence[Sequence[str]], log: Path) -> FailedCommand | None:
    """Runs commands until one fails.

    Args:
        commands: The commands.
        log: File that their output is added to.
    """
    for command in commands:
        name = " ".join(command[: 2 if command[0] == "export" else 1])
        click.echo(f"{log.stem}: {name}", err=True)
        with log.open("ab") as output:
            start = output.tell()
            code = subprocess.run([*EDGEPRESS, *command], stdout=output, stderr=subprocess.STDOUT).returncode
        if code:
            lines = log.read_bytes()[start:].decode("utf-8", "replace").strip().splitlines()
            return FailedCommand(name, lines[-1] if lines else f"exit code {code}")
    return None


def compare_images(results: Results) -> dict[str, ExportImages]:
    """The images of each export in an evaluation, by variant, against those of the quantized pipeline in torch."""
    folder, systems = Path(results.identity.image_folder), results.identity.variants
    model = next(name for name, system in systems.items() if system.kind == "diffusers")
    compared = {name: ExportImages([], [], 0) for name in systems if name != model}
    for sample in results.samples:
        expected = _read_pixels(folder, results, sample.variants[model].image)
        for name, images in compared.items():
            psnr = compute_psnr(expected, _read_pixels(folder, results, sample.variants[name].image))
            if psnr is None:
                compared[name] = replace(images, num_identical=images.num_identical + 1)
            else:
                images.psnr.append(psnr)
                images.prompts.append(sample.prompt.id)
    return compared


def _read_pixels(folder: Path, results: Results, image: ImageResult | None) -> NDArray[np.uint8]:
    if image is None:
        raise click.ClickException(f"{results.identity.image_folder} lacks images. Remove it, and repeat.")
    return np.asarray(Image.open(folder / image.file))


def render_rows(recipe: Recipe, artifact: Artifact) -> Iterator[list[str]]:
    """The rows of a finished artifact: one for each export."""
    report = verify(artifact.path)
    files = f"{sum(folder.files for folder in report.folders)}" if report.passed else f"**no**: {report.problems[0]}"
    results = load_results(artifact.evaluation / EVALUATION_RESULTS)
    for name, images in compare_images(results).items():
        verdicts = {gate.name: gate.verdict for gate in results.gates if gate.variant == name}
        open_gates = [f"{gate} {verdict}" for gate, verdict in verdicts.items() if verdict != "passed"]
        mean = bootstrap_mean(images.psnr, images.prompts) if images.psnr else None
        kind = results.identity.variants[name].kind
        yield [
            f"`{recipe.device}`",
            kind,
            describe_precision(artifact, kind),
            files,
            read_parity(artifact, kind),
            str(len(images.psnr) + images.num_identical),
            format_mean(mean, digits=1) if mean else "identical",
            f"{min(images.psnr):.1f}" if images.psnr else "",
            ", ".join(open_gates) or "passed",
        ]


def describe_precision(artifact: Artifact, export: str) -> str:
    """What an export computes in, as the table says it."""
    if export == RKNN:
        parts = [part for graph in read_rknn_config(artifact.rknn).graphs.values() for part in graph]
        precisions = Counter(part.precision if part.device == "npu" else "CPU" for part in parts)
        return ", ".join(f"{count} x {precision}" for precision, count in sorted(precisions.items(), key=str))
    config = read_onnx_config(artifact.onnx)
    level = f", level {config.accuracy_level}" if config.precision == "int4" else ""
    return f"{config.precision}, {config.format}, {config.float_dtype}{level}"


def read_parity(artifact: Artifact, export: str) -> str:
    """The PSNR of the image that was compared with torch at export, with the weights of that export."""
    if export == RKNN:
        return ", ".join(
            f"{_format_psnr(psnr)} {name}" for name, psnr in read_rknn_config(artifact.rknn).image_psnr.items()
        )
    parity = read_onnx_config(artifact.onnx).parity
    return ", ".join(f"{_format_psnr(errors.psnr)} {name}" for name, errors in parity.items() if errors.image_compared)


def _format_psnr(psnr: float | None) -> str:
    return "identical" if psnr is None else f"{psnr:.1f}"


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("artifacts"), show_default=True)
@click.option("--recipe", "names", multiple=True, help="Repeatable.  [default: all]")
@click.option("--limit", type=click.IntRange(0), default=0, help="Prompts to evaluate.  [default: the recipe's]")
@click.option("--tabulate", is_flag=True, help="Of artifacts that are finished, without making them again.")
@click.option("--print", "print_only", is_flag=True, help="Do not write to docs/benchmarks.")
def main(folder: Path, names: tuple[str, ...], limit: int, tabulate: bool, print_only: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    truth = None if tabulate else draw_ground_truth(folder / WORK / "ground-truth")
    rows, selected = [], names or tuple(recipe_names())
    for name in selected:
        recipe, artifact = load_recipe(name), Artifact(folder / name)
        commands = [] if tabulate else list_commands(recipe, artifact, truth, limit)
        failure = run_commands(commands, folder / f"{name}.log")
        if failure:
            rows.append([f"`{name}`", f"refused by `{failure.command}`: {failure.reason}", *[""] * (len(HEADER) - 2)])
        else:
            rows += render_rows(recipe, artifact)
    body = "\n\n".join(["## Artifacts of all recipes", INTRODUCTION, render_table(HEADER, rows)])
    if not print_only:
        write_section("device-artifacts", f"make bench-artifacts RECIPES='{' '.join(selected)}'", body)
    click.echo(body)


INTRODUCTION = (
    "The demo's artifact for every recipe, made by the commands of `make artifact`, or what refused it. One image was "
    "compared with torch at export, with the weights of that export: `exact` without integer arithmetic, `exported` as "
    f"the graphs run. Exports that only round floats promise {PROMISED_DB:g} dB there. Images of prompts of the "
    "evaluation set are compared with `model/` in torch, with the same noise: mean PSNR with its 95 % interval over "
    "prompts. Symmetric and 8-bit exports have another solution of the same layers than `model/`. The gates compare "
    "with the reference before quantization."
)

if __name__ == "__main__":
    main()
