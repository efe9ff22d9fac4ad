"""Compares every export of weights, as the program that it is for reads it, with the artifact: weights and an image.

`make bench-interop` quantizes the demo in build/interop, creates an environment without edgepress there, exports, and
opens each export in that environment.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from safetensors.torch import load_file
from torch import Tensor

from ...api import functions as api
from ...api import weight_exports
from ...common.markdown_table import render_table
from ...numerics.affine import dequantize
from ...numerics.awq_packing import AwqTensors, unpack_awq
from ...numerics.psnr import compute_psnr
from ...pipelines.sampling import load_pipeline
from ...storage.checkpoint import open_safetensors
from ...storage.layout import SOLUTIONS, Artifact
from ...storage.weight_export import read_weight_export
from ..common.report import write_section
from ..peers.environments import ensure_environment
from ..peers.errors import PeerError, find_cause
from .reader_worker import generate_image

ROOT = Path(__file__).parents[2]
WORKER, ROUND_TRIP_WORKER, AUTOAWQ_WORKER = (
    Path(__file__).with_name(f"{name}_worker.py") for name in ("reader", "round_trip", "autoawq")
)
AUTOAWQ = "AutoAWQ 0.2.9 (with transformers 4.51.3)"
ROUND_TRIP = (
    "Opened in stock diffusers with auto-round's backend `torch` (GPTQModel 7.7.0), saved by `save_pretrained` of the "
    "pipeline and opened again"
)
HEADER = ["export", "read by", "components", "MB", "bits/weight", "weights equal", "largest difference", "image, dB"]


@dataclass(frozen=True)
class ExportReader:
    """A program that reads an export.

    Attributes:
        folder: The export's folder in the artifact.
        export: Writes the export.
        packages: What reads it.
        title: What the table calls it.
        solution: The extra scheme whose weights it holds; empty for the model's own.
    """

    folder: str
    export: Callable[..., Any]
    packages: str
    title: str
    solution: str = ""


READERS = (
    ExportReader("diffusers", weight_exports.export_diffusers, "diffusers, transformers, auto-round", "diffusers"),
    ExportReader("gguf", weight_exports.export_gguf, "diffusers, transformers, gguf", "gguf (Q4_1)"),
    ExportReader(
        "gguf",
        partial(weight_exports.export_gguf, type="q4_0"),
        "diffusers, transformers, gguf",
        "gguf, symmetric (Q4_0)",
        "qdq",
    ),
    ExportReader(
        "compressed-tensors",
        weight_exports.export_compressed_tensors,
        "transformers, compressed-tensors",
        "compressed-tensors",
    ),
    ExportReader("comfyui", weight_exports.export_comfyui, "comfy-kitchen, diffusers", "comfyui"),
)


def compare_weights(model: Path, actual: dict[str, Tensor], components: list[str]) -> tuple[int, int, float]:
    """Compares the 4-bit layers of a folder of components with what a program computes with.

    Returns:
        The number of weights, how many of them are equal, and the largest difference in steps between codes.

    Raises:
        KeyError: The program has no such layer.
    """
    count = equal = 0
    largest = 0.0
    for component in components:
        stored = read_tensors(model / component)
        for name in (name.removesuffix(".qweight") for name in stored if name.endswith(".qweight")):
            quantized = unpack_awq(AwqTensors(*(stored[f"{name}.{kind}"] for kind in AwqTensors._fields)))
            expected, weight = dequantize(quantized), actual[f"{component}.{name}"]
            scales = quantized.qparams.scales
            steps = scales.repeat_interleave(expected.shape[1] // scales.shape[1], 1)
            count, equal = count + expected.numel(), equal + int((expected == weight).sum())
            largest = max(largest, float(((expected - weight).abs() / steps).max()))
    return count, equal, largest


def measure(reader: ExportReader, artifact: Artifact, python: Path, image: Tensor) -> tuple[list[str], str]:
    """Exports, and opens the export in the environment.

    Returns:
        The row of the table, in which an error of the program stands in place of the numbers, and what
        `save_pretrained` did, if it was tried.
    """
    reader.export(output=artifact.path)
    export = read_weight_export(artifact.path / reader.folder)
    total = sum(record.bytes for record in export.components.values())
    weights = sum(record.weights for record in export.components.values())
    sizes = [f"{total / 1e6:.2f}", f"{8 * total / weights:.3f}"]
    row = [reader.title, reader.packages, ", ".join(export.components), *sizes]
    output, log = (
        artifact.path.with_name(f"{reader.folder}.safetensors"),
        artifact.path.with_name(f"{reader.folder}.log"),
    )
    with log.open("wb") as stream:
        command = [str(python), "-P", str(WORKER), str(artifact.path), str(output.parent), reader.folder]
        process = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False)
    if process.returncode:
        return [*row, find_cause(log), "", ""], ""
    tensors = load_file(output)
    model = artifact.model / SOLUTIONS / reader.solution if reader.solution else artifact.model
    count, equal, largest = compare_weights(model, tensors, list(export.components))
    difference = f"{largest:.2g} of a step" if largest else "none"
    psnr = compute_psnr(image.numpy(), tensors["image"].numpy())
    similarity = "other weights" if reader.solution else "equal" if psnr is None else f"{psnr:.1f}"
    with open_safetensors(output) as file:
        saved = str(file.metadata()["save_pretrained"])
    return [*row, f"{equal / count:.1%}", difference, similarity], saved


def measure_round_trip(artifact: Artifact, python: Path) -> str:
    """Says what is equal after stock diffusers opened the export, saved it and opened that, or why it does not."""
    output, log = artifact.path.with_name("round-trip.json"), artifact.path.with_name("round-trip.log")
    with log.open("wb") as stream:
        # Without -P, since it imports the worker beside it.
        command = [str(python), str(ROUND_TRIP_WORKER), str(artifact.path / "diffusers"), str(output)]
        process = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False)
    if process.returncode:
        return f"{ROUND_TRIP} fails: {find_cause(log)}"
    result = json.loads(output.read_text("utf-8"))
    image = "equal" if result["is_image_equal"] else "another one"
    return (
        f"{ROUND_TRIP}: {result['equal']} of {result['tensors']} tensors of {' and '.join(result['components'])} are "
        f"equal, packed ones to the bit and floats to their cast to float16, and the image is {image}."
    )


def measure_autoawq(artifact: Artifact, folder: Path) -> str:
    """Says how many layers of the text encoder AutoAWQ itself unpacks to the same bits, or why it does not."""
    component, output, log = artifact.model / "text_encoder", folder / "autoawq.safetensors", folder / "autoawq.log"
    try:
        python = ensure_environment("autoawq", folder / "autoawq", AUTOAWQ_WORKER.with_name("autoawq.txt"))
    except PeerError as error:
        return f"{AUTOAWQ} could not be installed: {error}"
    command = [str(python), "-P", str(AUTOAWQ_WORKER), str(component), str(output)]
    with log.open("wb") as stream:
        process = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False)
    if process.returncode:
        return f"{AUTOAWQ} fails: {find_cause(log)}"
    tensors, stored = load_file(output), read_tensors(component)
    names = [name.removesuffix(".qweight") for name in stored if name.endswith(".qweight")]
    equal = sum(is_unpacked_alike(stored, tensors, name) for name in names)
    return (
        f"{AUTOAWQ} unpacks {len(names)} linear layers of the text encoder in `model/`. For {equal} of them codes, "
        "zero points and weights in float16 are equal to the bit."
    )


def is_unpacked_alike(stored: dict[str, Tensor], tensors: dict[str, Tensor], name: str) -> bool:
    """Whether AutoAWQ made the same codes, zero points and weight of a layer."""
    quantized = unpack_awq(AwqTensors(*(stored[f"{name}.{kind}"] for kind in AwqTensors._fields)))
    codes, qparams = quantized
    expected = (codes.T, qparams.zero_points.T, dequantize(quantized).half())
    return all(map(torch.equal, expected, (tensors[f"{kind}.{name}"] for kind in ("codes", "zeros", "weight"))))


def read_tensors(component: Path) -> dict[str, Tensor]:
    """All tensors of a component's folder."""
    tensors: dict[str, Tensor] = {}
    for file in sorted(component.glob("*.safetensors")):
        tensors |= load_file(file)
    return tensors


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=ROOT / "build" / "interop", help="Work folder.")
@click.option("--print", "print_only", is_flag=True, help="Do not write to docs/benchmarks.")
def main(folder: Path, print_only: bool) -> None:
    artifact = Artifact(folder / "quantized")
    api.quantize("orin", output=artifact.path, method="rtn", force=True)
    python = ensure_environment("readers", folder / "readers", Path(__file__).with_name("readers.txt"))
    image = generate_image(load_pipeline(artifact.model, torch.float32))
    measurements = [measure(reader, artifact, python, image) for reader in READERS]
    rows = [row for row, _ in measurements]
    saving = [
        f"With auto-round-lib, `save_pretrained` of the transformer in {reader.title}, opened again, {saved}."
        for reader, (_, saved) in zip(READERS, measurements, strict=True)
        if saved
    ]
    round_trip, autoawq = measure_round_trip(artifact, python), measure_autoawq(artifact, folder)
    introduction = " ".join([INTRODUCTION, *saving])
    body = "\n\n".join(["## Exports of weights", introduction, render_table(HEADER, rows), round_trip, autoawq])
    if not print_only:
        write_section("interop-exports", "make bench-interop", body)
    click.echo(body)


INTRODUCTION = (
    "The demo, quantized by rounding in groups of 128 with zero points, exported, and opened in an environment without "
    "edgepress, all in float32. The weights are what the program computes with: the outputs of each layer for the unit "
    "vectors. A step is the distance between two codes. The image is compared with that of the artifact (one prompt)."
)

if __name__ == "__main__":
    main()
