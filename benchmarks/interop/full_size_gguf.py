"""Exports a full-size pipeline to GGUF and opens the files with sd.cpp, which takes no other size.

Run by `make bench-interop-full-size`. The weights are random 4-bit codes in the shapes of a published model
(benchmarks/synthetic/quantized.py). sd.cpp is built from source in its own environment. One step from the
same noise and the same tokens is compared with that of the artifact in torch.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from ...common.markdown_table import render_table
from ...numerics.psnr import compute_psnr
from ...pipelines.sampling import load_pipeline
from ...storage.weight_export import read_weight_export
from ..common.process import Cost, measure_command
from ..common.report import write_section
from ..peers.environments import ensure_environment
from ..peers.errors import find_cause

ROOT = Path(__file__).parents[2]
WORKER = ROOT / "benchmarks" / "synthetic" / "sd_cpp_worker.py"
SIDE, SEED = 64, 0
PROMPT = "!"
# What the tokenizer in sd.cpp makes of the prompt in the chat template. The tokenizer of the random
# pipeline is another one.
TOKEN_IDS = (151644, 872, 198, 0, 151645, 198, 151644, 77091, 198)


@dataclass(frozen=True)
class FullSizeImage:
    """An image by sd.cpp.

    Attributes:
        version: Of its binding.
        cost: Cost of the whole process.
        pixels: The image, uint8 (height, width, 3).
    """

    version: str
    cost: Cost
    pixels: NDArray[np.uint8]


def prepare(folder: Path) -> tuple[Path, Path, Cost]:
    """Writes the pipeline and exports it.

    Returns:
        The pipeline, the export, and the cost of exporting.
    """
    pipeline, artifact = folder / "random-4-bit", folder / "exported"
    run = [sys.executable, "-m", "edgepress.benchmarks.synthetic.quantized", "--component", "all"]
    measure_command([*run, "--output", str(pipeline)], folder / "generate.log")
    export = [sys.executable, "-m", "edgepress", "export", "gguf", "--model", str(pipeline), "--output", str(artifact)]
    return pipeline, artifact / "gguf", measure_command(export, folder / "export.log")


def generate(python: Path, pipeline: Path, export: Path, folder: Path) -> FullSizeImage | str:
    """An image by sd.cpp; the reason where it fails."""
    output, log = folder / "sd-cpp", folder / "sd-cpp.log"
    files = [
        export / "transformer.gguf",
        export / "text_encoder.gguf",
        *sorted((pipeline / "vae").glob("*.safetensors")),
    ]
    arguments = [str(output), *map(str, files), PROMPT, str(SIDE), str(SEED)]
    try:
        cost = measure_command([str(python), "-P", str(WORKER), *arguments], log)
    except click.ClickException:
        return find_cause(log)
    content = json.loads(output.with_suffix(".json").read_text("utf-8"))
    pixels = np.load(output.with_suffix(".npy"))
    return FullSizeImage(content["version"], cost, pixels)


@torch.no_grad()
def generate_reference(folder: Path) -> NDArray[np.uint8]:
    """The image of the pipeline in torch and float32, from the same noise and tokens, uint8 (height, width, 3)."""
    pipeline = load_pipeline(folder, torch.float32)
    states = pipeline.text_encoder(torch.tensor([TOKEN_IDS]), output_hidden_states=True).hidden_states[-2]
    generator = torch.Generator().manual_seed(SEED)
    settings = {"height": SIDE, "width": SIDE, "num_inference_steps": 1, "guidance_scale": 0.0}
    return np.asarray(pipeline(prompt_embeds=[states[0]], generator=generator, **settings).images[0])


def render_section(export: Path, cost: Cost, image: FullSizeImage | str, reference: NDArray[np.uint8] | None) -> str:
    """Returns the section of docs/benchmarks/interop.md."""
    rows, content = [], read_weight_export(export)
    for name, record in content.components.items():
        types = ", ".join(f"{count} {kind}" for kind, count in record.types.items())
        bits = f"{record.bits_per_weight:.3f}"
        rows.append([name, f"{record.weights:,}", f"{record.bytes / 1e9:.2f}", bits, types])
    if isinstance(image, str) or reference is None:
        result = f"sd.cpp fails: {image}"
    else:
        psnr = compute_psnr(reference, image.pixels)
        result = render_table(
            ["sd.cpp, binding " + image.version, ""],
            [
                ["peak RSS", f"{image.cost.peak_rss / 1e9:.2f} GB"],
                ["the image, from that of the artifact in float32", "equal" if psnr is None else f"{psnr:.1f} dB"],
            ],
        )
    return "\n\n".join(
        [
            "## A full-size GGUF in sd.cpp",
            INTRODUCTION.format(pipeline_class=content.family, memory=cost.peak_rss / 1e9, side=SIDE),
            render_table(["component", "weights", "GB", "bits/weight", "tensors"], rows),
            result,
        ]
    )


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("artifacts/full-size"), show_default=True)
@click.option("--environment", type=click.Path(path_type=Path), default=ROOT / "build" / "interop" / "sd.cpp")
@click.option("--keep", is_flag=True, help="Keep the pipeline and its export, 13 GB.")
@click.option("--print", "print_only", is_flag=True, help="Do not write to docs/benchmarks.")
def main(folder: Path, environment: Path, keep: bool, print_only: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    python = ensure_environment("sd.cpp", environment, WORKER.with_name("sd_cpp.txt"))
    pipeline, export, cost = prepare(folder)
    image = generate(python, pipeline, export, folder)
    reference = None if isinstance(image, str) else generate_reference(pipeline)
    body = render_section(export, cost, image, reference)
    if not print_only:
        write_section("interop-full-size", "make bench-interop-full-size", body)
    click.echo(body)
    if not keep:
        shutil.rmtree(pipeline)
        shutil.rmtree(export.parent)


INTRODUCTION = (
    "A {pipeline_class} with the shapes of the published model and random 4-bit codes in groups of 128 with zero "
    "points, written by `edgepress export gguf` with a peak of {memory:.2f} GB, and opened by sd.cpp, built from "
    "source for this CPU. It takes the released size only, so the demo cannot be tried. One image of {side} x {side}, "
    "one step from the same noise, the same tokens and guidance 1; sd.cpp rounds the inputs of quantized products "
    "to 8 bits."
)

if __name__ == "__main__":
    main()
