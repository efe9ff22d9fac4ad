"""Runs the exports of an artifact on an emulated arm64 processor: golden outputs, images, and a status in the artifact.

Run by `make verify-arm64`. The system is created once in build/arm64, and so are the exports that the artifact does not
have; what was emulated of them is kept, so that an interrupted run goes on. Emulated instructions are no board: they
compute what the processor computes, in a time that says nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from ...api.description import describe
from ...api.functions import export_onnx
from ...common.errors import UserError
from ...common.markdown_table import render_table
from ...common.progress import progress_bars
from ...evaluate.stats.bootstrap import bootstrap_mean
from ...numerics.psnr import compute_psnr
from ...storage.emulation import EmulatedGraph, EmulationResults, write_emulation
from ...storage.layout import Artifact
from ...storage.outdated_results import digest_published
from ..common.report import format_mean, write_section
from .emulator import FEATURES, Emulator, prepare_emulator
from .worker import RESULTS
from .worker import main as run_exports

FOLDER = Path(__file__).parents[2] / "build" / "arm64"
WORKER = "edgepress.benchmarks.arm64.worker"
PUBLISHED = "published"  # the artifact's export itself


@dataclass(frozen=True)
class Precision:
    """A precision to emulate.

    Attributes:
        title: What the table calls it.
        settings: Arguments of `export_onnx`; the artifact's own export if there are none.
    """

    title: str
    settings: Mapping[str, Any]


PRECISIONS = {
    PUBLISHED: Precision("as the recipe says", {}),
    "int4-0": Precision("INT4, accuracy level 0", {"precision": "int4", "accuracy_level": 0}),
    "w8a8": Precision("W8A8", {"precision": "w8a8"}),
    "fp16": Precision("fp16", {"precision": "fp16", "ignore_plan": True}),
}


def prepare_exports(artifact: Artifact, recipe: str, names: tuple[str, ...], folder: Path) -> dict[str, Path]:
    """Exports what the artifact does not have.

    Args:
        artifact: The artifact.
        recipe: Its recipe.
        names: Of `PRECISIONS`.
        folder: Where exports are kept, as long as the artifact's model is the same.

    Returns:
        The folders of the graphs, by name.
    """
    digest = digest_published(artifact.model)
    marker = folder / "model"
    if not marker.exists() or marker.read_text("utf-8") != digest:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        marker.write_text(str(digest), "utf-8")
    exports = {}
    for name in names:
        if name == PUBLISHED:
            exports[name] = artifact.onnx
            continue
        target = Artifact(folder / name)
        if not target.has_onnx:
            with progress_bars() as progress:
                settings = PRECISIONS[name].settings
                export_onnx(recipe, model=artifact.path, output=target.path, progress=progress, **settings)
        exports[name] = target.onnx
    return exports


def compare_images(name: str, emulated: Path, native: Path) -> list[float | None]:
    """The PSNR of each emulated image against that of this machine; None where they are identical."""
    files = sorted((emulated / name).glob("*.png"))
    return [
        compute_psnr(np.asarray(Image.open(native / name / file.name)), np.asarray(Image.open(file))) for file in files
    ]


def render_row(name: str, emulated: dict[str, Any], native: dict[str, Any], psnr: list[float | None]) -> list[str]:
    """A row of the table: the worst graph on both processors, and the images."""
    worst = max(emulated["graphs"], key=lambda graph: emulated["graphs"][graph]["error"])
    native_graph, emulated_graph = (results["graphs"][worst] for results in (native, emulated))
    passed = all(graph["error"] <= graph["limit"] for graph in emulated["graphs"].values())
    finite = [value for value in psnr if value is not None]
    mean = bootstrap_mean(finite, [str(number) for number in range(len(finite))]) if finite else None
    images = f"{format_mean(mean, digits=1)}, at least {min(finite):.1f}" if mean else "identical" if psnr else ""
    errors = [
        f"{native_graph['error']:.1e}",
        f"{emulated_graph['error']:.1e}",
        f"{emulated_graph['limit']:.0e}",
        "yes" if passed else "**no**",
    ]
    return [PRECISIONS[name].title, worst, *errors, images]


def record_status(artifact: Artifact, emulator: Emulator, results: dict[str, Any], psnr: list[float | None]) -> None:
    """Writes what was emulated of the artifact's own export into it, and describes the artifact again."""
    graphs = {
        name: EmulatedGraph(relative_error=graph["error"], limit=graph["limit"])
        for name, graph in results["graphs"].items()
    }
    emulation = EmulationResults(
        processor=emulator.processor,
        engine=results["engine"],
        onnx_sha256=str(digest_published(artifact.onnx)),
        graphs=graphs,
        image_psnr=tuple(psnr),
    )
    write_emulation(emulation, artifact)
    describe(artifact.path)


@click.command(help=__doc__)
@click.option("--artifact", type=click.Path(path_type=Path), default=Path("artifacts/pi5"), show_default=True)
@click.option("--recipe", default="pi5", show_default=True, help="The artifact's.")
@click.option("--processor", type=click.Choice(list(FEATURES)), default="cortex-a76", show_default=True)
@click.option(
    "--precision", "names", type=click.Choice(list(PRECISIONS)), multiple=True, help="Repeatable.  [default: all]"
)
@click.option("--images", type=click.IntRange(0), default=2, show_default=True, help="Of each export.")
@click.option("--prompts", default="demo/pipeline/prompts/evaluation.jsonl", show_default=True)
@click.option("--print", "print_only", is_flag=True, help="Do not write to docs/benchmarks.")
def main(
    artifact: Path,
    recipe: str,
    processor: str,
    names: tuple[str, ...],
    images: int,
    prompts: str,
    print_only: bool,
) -> None:
    source, selected = Artifact(artifact), names or tuple(PRECISIONS)
    if not source.has_onnx:
        raise UserError(f"{artifact} has no ONNX graphs. Make it with 'make artifact DEVICE={recipe}'.")
    emulator = prepare_emulator(FOLDER, processor)
    exports = prepare_exports(source, recipe, selected, FOLDER / "exports")
    digest = str(digest_published(source.onnx))[:16]
    work = FOLDER / f"results-{digest}-{images}"
    native, emulated = work / "native", work / processor
    arguments = [f"{name}={folder.absolute()}" for name, folder in exports.items()]
    set_file = str(Path(prompts).absolute()) if Path(prompts).exists() else prompts
    run_exports(set_file, str(images), str(native), *arguments)
    emulator.run_module(WORKER, [set_file, str(images), str(emulated), *arguments])
    results = {folder: {name: _read(folder / name) for name in selected} for folder in (native, emulated)}
    psnr = {name: compare_images(name, emulated, native) for name in selected}
    if PUBLISHED in selected:
        record_status(source, emulator, results[emulated][PUBLISHED], psnr[PUBLISHED])
    rows = [render_row(name, results[emulated][name], results[native][name], psnr[name]) for name in selected]
    engine = results[emulated][selected[0]]["engine"]
    header = [
        "graphs",
        "worst graph",
        "error here",
        f"error on {processor}",
        "limit",
        "within",
        "images against here, dB",
    ]
    introduction = INTRODUCTION.format(processor=processor, engine=engine, recipe=recipe, images=images)
    body = "\n\n".join([f"## {processor}, emulated", introduction, render_table(header, rows)])
    if not print_only:
        write_section(f"arm64-{processor}", f"make verify-arm64 IMAGES={images}", body)
    click.echo(body)


def _read(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / RESULTS).read_text("utf-8"))
    return content


INTRODUCTION = (
    "{engine}'s arm64 wheel under qemu's user-mode emulation of a {processor}: the demo as the recipe `{recipe}` "
    "quantizes it. The graph with the largest error on its golden inputs, relative to torch's largest output, here and "
    "emulated, and the limit that `edgepress verify` applies on such a processor. Images: PSNR against the same graphs "
    "here, mean with its 95 % interval over {images} prompts of the evaluation set."
)

if __name__ == "__main__":
    main()
