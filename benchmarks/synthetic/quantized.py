"""Writes a pipeline with 4-bit components that have the exact shapes of Z-Image-Turbo, without quantizing anything.

    python -m edgepress.benchmarks.synthetic.quantized --component transformer --output DIR

It is for measuring what follows quantization, without the hour that quantization takes. Codes, zero points and scales
are random; the scales are such that a linear layer keeps the scale of its inputs. Layout and config are those of a
quantized component. Everything else is as in full_size.py, with tiny other components that fit these.
"""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from ...models.base.family import Component
from ...models.z_image.family import FAMILY
from ...numerics.awq_packing import AwqTensors
from ...numerics.int8_rows import Int8Rows
from ...storage.checkpoint import write_sharded
from ...storage.files import write_json
from .full_size import (
    FULL_SHAPES,
    STEMS,
    PipelineShapes,
    compute_gain,
    draw_tensor,
    draw_weights,
    make_generator,
    make_meta_models,
    write_configs,
)

COMPONENTS = ("transformer", "text_encoder")
GROUP_SIZE = 128
CODE_STD = 4.6  # standard deviation of a random code, 0 ... 15, minus a zero point of 7 or 8
PACKED_SEVENS = 0x77777777  # eight zero points of 7 in 32 bits
TINY_SHAPES = PipelineShapes(
    transformer=FULL_SHAPES.transformer
    | {"dim": 192, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 3, "n_kv_heads": 3}
    | {"axes_dims": [16, 24, 24], "axes_lens": [1024, 64, 64]},
    text_encoder=FULL_SHAPES.text_encoder
    | {"vocab_size": 512, "intermediate_size": 128, "num_hidden_layers": 2, "max_window_layers": 2}
    | {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32},
    vae=FULL_SHAPES.vae | {"block_out_channels": [8, 8, 8, 8], "norm_num_groups": 4, "layers_per_block": 0},
)


def write_quantized(folder: Path, components: Sequence[str], shapes: PipelineShapes = FULL_SHAPES) -> None:
    """Writes the pipeline folder, unless it exists.

    Args:
        folder: The folder. It appears only when it is complete.
        components: The components with the shapes below, in 4 bits but for a VAE. Others are tiny.
        shapes: Their shapes.
    """
    if folder.exists():
        return
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    models = make_meta_models(replace(TINY_SHAPES, **{name: getattr(shapes, name) for name in components}))
    write_configs(models, new)
    for name, model in models.items():
        is_quantized = name in components and name in COMPONENTS
        tensors = draw_quantized_weights(name, model) if is_quantized else draw_weights(name, model)
        write_sharded(tensors, new / name, STEMS[name])
        if is_quantized:
            write_json(_make_config(name, model), new / name / "config.json")
    new.replace(folder)


def draw_quantized_weights(component: str, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yields the tensors of a quantized component, drawn one by one, for a model on the meta device."""
    spec = _get_spec(component)
    linears, unused = set(_find_linears(spec, model)), tuple(f"{path}." for path in _find_unused_blocks(spec, model))
    for name, parameter in model.named_parameters():
        module = name.removesuffix(".weight")
        if name.startswith(unused):
            continue
        if module in linears:
            packed = _draw_int4(parameter.shape, compute_gain(name, model), make_generator(component, name))
            yield from ((f"{module}.{kind}", tensor) for kind, tensor in packed._asdict().items())
        elif module in spec.embeddings:
            rows = _draw_int8(parameter.shape, make_generator(component, name))
            yield from ((f"{module}.{kind}", tensor) for kind, tensor in rows._asdict().items())
        else:
            yield name, draw_tensor(name, parameter.shape, make_generator(component, name), compute_gain(name, model))


def _get_spec(component: str) -> Component:
    return next(spec for spec in FAMILY.components if spec.name == component)


def _find_linears(spec: Component, model: nn.Module) -> list[str]:
    """Returns the names of the modules that are quantized to 4 bits."""
    patterns = [f"{block.path}.{linear}" for block in spec.blocks for linear in block.linears]
    names = [name for name, _ in model.named_modules()]
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def _find_unused_blocks(spec: Component, model: nn.Module) -> list[str]:
    """Returns the paths of the last blocks whose outputs the pipeline never uses."""
    path = spec.blocks[-1].path.removesuffix(".*")
    if not (spec.unused_blocks or spec.num_used_blocks):
        return []
    count = len(model.get_submodule(path))  # type: ignore[arg-type]
    return [f"{path}.{number}" for number in range(count - spec.count_unused_blocks(count), count)]


def _draw_int4(shape: torch.Size, gain: float, generator: torch.Generator) -> AwqTensors:
    """Draws a linear layer (out, in) that turns inputs of RMS 1 into outputs of RMS `gain`."""
    outputs, inputs = shape
    groups = inputs // GROUP_SIZE
    size = gain * inputs**-0.5 / CODE_STD
    zeros = torch.randint(0, 2, (groups, outputs // 8, 8), generator=generator, dtype=torch.int32)
    shifts = torch.arange(0, 32, 4, dtype=torch.int32)
    return AwqTensors(
        qweight=torch.randint(-(2**31), 2**31, (inputs, outputs // 8), generator=generator, dtype=torch.int32),
        qzeros=PACKED_SEVENS + (zeros << shifts).sum(-1, dtype=torch.int32),
        scales=(size * torch.empty(groups, outputs).uniform_(0.5, 1.5, generator=generator)).to(torch.float16),
    )


def _draw_int8(shape: torch.Size, generator: torch.Generator) -> Int8Rows:
    """Draws an embedding with values of RMS 1."""
    codes = torch.randint(-127, 128, shape, generator=generator, dtype=torch.int8)
    return Int8Rows(codes, torch.full((shape[0], 1), 3**0.5 / 127, dtype=torch.float16))


def _make_config(component: str, model: Any) -> dict[str, Any]:
    """Returns the config of the quantized component."""
    spec = _get_spec(component)
    linears = set(_find_linears(spec, model))
    matrices = [
        name for name, parameter in model.named_parameters() if name.endswith(".weight") and parameter.ndim == 2
    ]
    modules = (name.removesuffix(".weight") for name in matrices)
    quantization_config: dict[str, Any] = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": GROUP_SIZE,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": sorted(name for name in modules if name not in linears),
    }
    optional = {"embeddings": list(spec.embeddings), "unused_blocks": _find_unused_blocks(spec, model)}
    config = model.config.to_dict() if hasattr(model.config, "to_dict") else dict(model.config)
    return config | {
        "quantization_config": quantization_config | {key: names for key, names in optional.items() if names}
    }


@click.command(help=__doc__)
@click.option("--component", required=True, type=click.Choice([*COMPONENTS, "all"]), help="all: the VAE, too.")
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The pipeline folder to write.")
@click.option("--layers", type=click.IntRange(2), help="Write fewer layers.")
def main(component: str, output: Path, layers: int | None) -> None:
    components = list(STEMS) if component == "all" else [component]
    write_quantized(output, components, FULL_SHAPES.with_layers(layers) if layers else FULL_SHAPES)


if __name__ == "__main__":
    main()
