"""Compares ways to round the demo to GGUF's blocks of 32 weights at the same bits: codes of edgepress, and of ggml.

Part of `make bench-interop`. With `--ggml`, a library of ggml (`libggml-base.so` of llama.cpp or of
sd.cpp), its rounding with an importance matrix is compared as well: the mean squares of every layer's
inputs over the calibration prompts, which is what `--imatrix` of both programs collects.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as TensorType
from torch import Tensor, nn

from ...api import functions as api
from ...common.markdown_table import render_table
from ...evaluate.stats.bootstrap import bootstrap_mean
from ...numerics.affine import QuantizedWeight, dequantize
from ...numerics.awq_packing import AwqTensors, bits_per_weight, unpack_awq
from ...numerics.gguf_blocks import pack_q4_0, pack_q4_1
from ...numerics.psnr import compute_psnr
from ...pipelines.hub import DEMO_PIPELINE
from ...pipelines.sampling import SamplingParams, batched, generate_images, load_pipeline, resolve_sampling
from ...prompts.prompt import Prompt
from ...prompts.sets import load_prompt_set, resolve_prompt_set
from ...recipes.loader import load_recipe
from ...recipes.schema import Recipe, Scheme
from ...storage.layout import SOLUTIONS, Artifact
from ..common.prompt_halves import load_half
from ..common.report import format_mean, write_section
from .__main__ import ROOT, read_tensors

GROUP_SIZE: Final = 32
COMPONENTS = ("transformer", "text_encoder")
SYMMETRIC = "q4_0"  # the name of the extra scheme
HEADER = ["rounded by", "stored as", "bits/weight", "PSNR dB (95 %)", "minus plain rounding, dB (95 %)"]
Weights = Mapping[str, Tensor]
Solution = Mapping[str, QuantizedWeight]


@dataclass(frozen=True)
class Rounding:
    """The demo's linear layers, rounded.

    Attributes:
        title: Who rounded them.
        stored_as: The type of the blocks.
        bits: Stored bits per weight.
        weights: The dequantized weights by `component.module`.
        base: The number of the rounding that it is compared with.
    """

    title: str
    stored_as: str
    bits: float
    weights: Weights
    base: int


def make_recipe() -> Recipe:
    """The recipe orin with groups of 32, and a symmetric solution."""
    recipe = load_recipe("orin")
    schemes = {SYMMETRIC: Scheme(group_size=GROUP_SIZE, symmetric=True)}
    changes = {"scheme": Scheme(group_size=GROUP_SIZE), "extra_schemes": schemes}
    return recipe.model_copy(update={"quantize": recipe.quantize.model_copy(update=changes)})


def read_solution(folder: Path) -> Solution:
    """The 4-bit layers of a folder of components, by `component.module`."""
    layers = {}
    for component in COMPONENTS:
        tensors = read_tensors(folder / component)
        for name in (name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")):
            packed = AwqTensors(*(tensors[f"{name}.{kind}"] for kind in AwqTensors._fields))
            layers[f"{component}.{name}"] = unpack_awq(packed)
    return layers


def read_blocks(packed: Tensor, kind: TensorType) -> Tensor:
    """What the package gguf makes of packed blocks, float32 (out, in)."""
    return torch.from_numpy(gguf.dequantize(packed.numpy(), kind))


def iterate_linears(pipeline: Any, names: Sequence[str]) -> Iterator[tuple[str, nn.Linear]]:
    for name in names:
        component, _, module = name.partition(".")
        yield name, getattr(pipeline, component).get_submodule(module)


@contextmanager
def collect_mean_squares(pipeline: Any, names: Sequence[str], means: dict[str, Tensor]) -> Iterator[None]:
    """Fills in the mean squares of the inputs of layers, float32 (in,), while the pipeline runs."""
    sums = {name: (torch.zeros(linear.in_features), [0]) for name, linear in iterate_linears(pipeline, names)}

    def make_hook(name: str) -> Any:
        total, count = sums[name]

        def observe(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            rows = inputs[0].detach().flatten(0, -2).float()
            total.add_(rows.square().sum(0))
            count[0] += len(rows)

        return observe

    handles = [linear.register_forward_pre_hook(make_hook(name)) for name, linear in iterate_linears(pipeline, names)]
    yield
    for handle in handles:
        handle.remove()
    means.update({name: total / count[0] for name, (total, count) in sums.items()})


def round_with_ggml(library: ctypes.CDLL, weight: Tensor, kind: TensorType, importance: Tensor) -> Tensor:
    """What ggml makes of a weight (out, in) with an importance (in,) of its columns."""
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    values, columns = weight.float().contiguous().numpy(), importance.float().numpy()
    packed = np.zeros((weight.shape[0], weight.shape[1] // block * block_bytes), np.uint8)
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk(
        ctypes.c_int(kind.value),
        ctypes.c_void_p(values.ctypes.data),
        ctypes.c_void_p(packed.ctypes.data),
        *map(ctypes.c_int64, (0, *weight.shape)),
        ctypes.c_void_p(columns.ctypes.data),
    )
    return read_blocks(torch.from_numpy(packed), kind)


def make_roundings(artifact: Artifact, pipeline: Any, ggml: Path | None) -> list[Rounding]:
    """All roundings. The first two are plain: what the package gguf makes of the demo's weights, in Q4_1 and Q4_0."""
    model = read_solution(artifact.model)
    symmetric = read_solution(artifact.model / SOLUTIONS / SYMMETRIC)
    originals = {name: linear.weight.detach().clone() for name, linear in iterate_linears(pipeline, list(model))}
    kinds = (TensorType.Q4_1, TensorType.Q4_0)
    bits = {kind: 8 * gguf.GGML_QUANT_SIZES[kind][1] / gguf.GGML_QUANT_SIZES[kind][0] for kind in kinds}

    def round_plainly(kind: TensorType) -> Weights:
        return {
            name: read_blocks(torch.from_numpy(gguf.quantize(weight.numpy(), kind)), kind)
            for name, weight in originals.items()
        }

    roundings = [
        Rounding("gguf, plain", kind.name, bits[kind], round_plainly(kind), number) for number, kind in enumerate(kinds)
    ]
    if ggml:
        means: dict[str, Tensor] = {}
        prompts, sampling = load_calibration()
        with collect_mean_squares(pipeline, list(model), means):
            for batch in batched(prompts, sampling.batch_size):
                generate_images(pipeline, batch, sampling, output_type="latent")
        library = ctypes.CDLL(str(ggml.resolve()))
        for number, kind in enumerate(kinds):
            weights = {name: round_with_ggml(library, originals[name], kind, means[name]) for name in originals}
            roundings.append(Rounding("ggml with importance matrix", kind.name, bits[kind], weights, number))
    minima = {name: read_blocks(pack_q4_1(weight), kinds[0]) for name, weight in model.items()}
    codes = {name: read_blocks(pack_q4_0(weight), kinds[1]) for name, weight in symmetric.items()}
    exact = {name: dequantize(weight) for name, weight in model.items()}
    return [
        *roundings,
        Rounding("edgepress", kinds[0].name, bits[kinds[0]], minima, 0),
        Rounding("edgepress", kinds[1].name, bits[kinds[1]], codes, 1),
        Rounding("edgepress", "the artifact, whose minima are exact", bits_per_weight(GROUP_SIZE), exact, 0),
    ]


def load_calibration() -> tuple[Sequence[Prompt], SamplingParams]:
    """The prompts that edgepress calibrates with, and how their images are generated."""
    settings = load_recipe("orin").calibration
    prompts = load_prompt_set(resolve_prompt_set(DEMO_PIPELINE, settings.prompts, "calibration"))[: settings.count]
    return prompts, resolve_sampling(settings, DEMO_PIPELINE)


@torch.no_grad()
def generate_with(pipeline: Any, weights: Weights, prompts: Sequence[Prompt]) -> list[Any]:
    """Images with other weights, which stay in the pipeline."""
    for name, linear in iterate_linears(pipeline, list(weights)):
        linear.weight.copy_(weights[name])
    sampling = resolve_sampling(load_recipe("orin").evaluation, DEMO_PIPELINE)
    batches = batched(prompts, sampling.batch_size)
    return [np.asarray(image) for batch in batches for image in generate_images(pipeline, batch, sampling)]


def compute_psnrs(references: Sequence[Any], images: Sequence[Any]) -> list[float | None]:
    """PSNR of each pair in dB; None where the images are equal."""
    return [compute_psnr(reference, image) for reference, image in zip(references, images, strict=True)]


def describe_difference(values: Sequence[float | None], base: Sequence[float | None], ids: Sequence[str]) -> str:
    """The mean paired difference with its interval, without pairs of which one is equal to the reference."""
    pairs = [(a - b, name) for a, b, name in zip(values, base, ids, strict=True) if a is not None and b is not None]
    mean = bootstrap_mean([difference for difference, _ in pairs], [name for _, name in pairs])
    return format_mean(mean, digits=3) if mean else "none"


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=ROOT / "build" / "interop", help="Work folder.")
@click.option("--ggml", type=click.Path(path_type=Path, exists=True), help="A library of ggml, libggml-base.so.")
@click.option("--limit", default=32, show_default=True, help="Number of evaluation prompts of the final half.")
@click.option("--print", "print_only", is_flag=True, help="Do not write to docs/benchmarks.")
def main(folder: Path, ggml: Path | None, limit: int, print_only: bool) -> None:
    artifact = Artifact(folder / "groups-of-32")
    api.quantize(make_recipe(), output=artifact.path, force=True)
    pipeline = load_pipeline(DEMO_PIPELINE, torch.float32)
    prompts = load_half("final")[:limit]
    references = generate_with(pipeline, {}, prompts)
    roundings = make_roundings(artifact, pipeline, ggml)
    psnrs = [compute_psnrs(references, generate_with(pipeline, item.weights, prompts)) for item in roundings]
    ids = [prompt.id for prompt in prompts]
    rows = [
        [
            item.title,
            item.stored_as,
            f"{item.bits:.3f}",
            describe_difference(values, [0.0] * len(values), ids),
            "" if values is psnrs[item.base] else describe_difference(values, psnrs[item.base], ids),
        ]
        for item, values in zip(roundings, psnrs, strict=True)
    ]
    minimum = describe_difference(psnrs[-3], psnrs[-1], ids)
    body = "\n\n".join(
        [
            "## GGUF at the same bits",
            INTRODUCTION.format(count=len(prompts), minimum=minimum),
            render_table(HEADER, rows),
        ]
    )
    if not print_only:
        write_section("interop-gguf", "make bench-interop", body)
    click.echo(body)


INTRODUCTION = (
    "The linear layers of the demo's transformer and text encoder in blocks of 32 weights, rounded by the package "
    "gguf, by ggml with an importance matrix, as sd.cpp does with `--imatrix`, and by edgepress with "
    "`gptq` in groups of 32. All blocks are dequantized by the package gguf, and the same code generates images in "
    "float32: {count} evaluation prompts of the final half, one seed, PSNR to images of the float weights. Intervals "
    "are bootstrapped over prompts; differences are paired. Storing the minimum of a group in fp16 in Q4_1, which the "
    "artifact does not round, changes PSNR by {minimum} dB."
)

if __name__ == "__main__":
    main()
