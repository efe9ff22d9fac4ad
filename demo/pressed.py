"""Writes a pipeline of which one component has Z-Image-Turbo's exact shapes and is in 4 bits, without pressing it.

    python -m edgepress.demo.pressed --component transformer --output DIR

For measuring what comes after pressing, without the hour that this takes. Nothing is solved: codes, zero points and
scales are drawn at random (the scales so that a linear keeps the size of its inputs), in AutoAWQ's layout and with the
config that pressing leaves. Everything else is as in full_size.py, and the other components are tiny, but as wide where
they meet.
"""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn

from ..checkpoint import write_json, write_sharded
from ..int4 import AwqTensors
from ..int8 import Int8Rows
from ..models import Component
from ..models.z_image import FAMILY
from .full_size import FULL, STEMS, Shapes, draw, gain_of, generator_of, meta_models, weights, write_configs

COMPONENTS = ("transformer", "text_encoder")
GROUP_SIZE = 128
SPREAD_OF_CODES = 4.6  # standard deviation of a code, any of 0 ... 15, less a zero point of 7 or 8
ZEROS = 0x77777777  # a word of eight zero points of 7
TINY = Shapes(
    transformer=FULL.transformer
    | {"dim": 192, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 3, "n_kv_heads": 3}
    | {"axes_dims": [16, 24, 24], "axes_lens": [1024, 64, 64]},
    text_encoder=FULL.text_encoder
    | {"vocab_size": 512, "intermediate_size": 128, "num_hidden_layers": 2, "max_window_layers": 2}
    | {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32},
    vae=FULL.vae | {"block_out_channels": [8, 8, 8, 8], "norm_num_groups": 4, "layers_per_block": 1},
)


def write_pressed(folder: Path, component: str, shapes: Shapes = FULL) -> None:
    """Writes the pipeline folder, its `component` in 4 bits; a finished one is kept, a half-written one begun anew."""
    if folder.exists():
        return
    new = folder.with_name(folder.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    models = meta_models(replace(TINY, **{component: getattr(shapes, component)}))
    write_configs(models, new)
    for name, model in models.items():
        tensors = pressed_weights(name, model) if name == component else weights(name, model)
        write_sharded(tensors, new / name, STEMS[name])
    write_json(_config(component, models[component]), new / component / "config.json")
    new.replace(folder)


def pressed_weights(component: str, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every tensor that pressing leaves of a model on the meta device, drawn as it is asked for."""
    known = _known(component)
    linears, unread = set(_linears(known, model)), tuple(f"{path}." for path in _unread(known, model))
    for name, parameter in model.named_parameters():
        module = name.removesuffix(".weight")
        if name.startswith(unread):
            continue
        if module in linears:
            packed = _packed(parameter.shape, gain_of(name, model), generator_of(component, name))
            yield from ((f"{module}.{kind}", tensor) for kind, tensor in packed._asdict().items())
        elif module in known.embeddings:
            rows = _rows(parameter.shape, generator_of(component, name))
            yield from ((f"{module}.{kind}", tensor) for kind, tensor in rows._asdict().items())
        else:
            yield name, draw(name, parameter.shape, generator_of(component, name), gain_of(name, model))


def _known(component: str) -> Component:
    return next(known for known in FAMILY.components if known.name == component)


def _linears(known: Component, model: nn.Module) -> list[str]:
    """The modules that pressing puts into 4 bits."""
    patterns = [f"{block.path}.{linear}" for block in known.blocks for linear in block.linears]
    names = [name for name, _ in model.named_modules()]
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def _unread(known: Component, model: nn.Module) -> list[str]:
    """The last copies of the last block, where the pipeline does not read them."""
    path = known.blocks[-1].path.removesuffix(".*")
    count = len(model.get_submodule(path)) if known.unread else 0  # type: ignore[arg-type]
    return [f"{path}.{number}" for number in range(count - known.unread, count)]


def _packed(shape: torch.Size, gain: float, generator: torch.Generator) -> AwqTensors:
    """A linear (out, in) of random codes that makes inputs of size 1 into outputs of size `gain`."""
    outputs, inputs = shape
    groups = inputs // GROUP_SIZE
    size = gain * inputs**-0.5 / SPREAD_OF_CODES
    zeros = torch.randint(0, 2, (groups, outputs // 8, 8), generator=generator, dtype=torch.int32)
    shifts = torch.arange(0, 32, 4, dtype=torch.int32)
    return AwqTensors(
        qweight=torch.randint(-(2**31), 2**31, (inputs, outputs // 8), generator=generator, dtype=torch.int32),
        qzeros=ZEROS + (zeros << shifts).sum(-1, dtype=torch.int32),
        scales=(size * torch.empty(groups, outputs).uniform_(0.5, 1.5, generator=generator)).to(torch.float16),
    )


def _rows(shape: torch.Size, generator: torch.Generator) -> Int8Rows:
    """An embedding of random codes, its values of size 1."""
    codes = torch.randint(-127, 128, shape, generator=generator, dtype=torch.int8)
    return Int8Rows(codes, torch.full((shape[0], 1), 3**0.5 / 127, dtype=torch.float16))


def _config(component: str, model: Any) -> dict[str, Any]:
    """The component's config, with what pressing adds."""
    known = _known(component)
    linears = set(_linears(known, model))
    matrices = [
        name for name, parameter in model.named_parameters() if name.endswith(".weight") and parameter.ndim == 2
    ]
    modules = (name.removesuffix(".weight") for name in matrices)
    said: dict[str, Any] = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": GROUP_SIZE,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": sorted(name for name in modules if name not in linears),
    }
    more = {"embeddings": list(known.embeddings), "unread": _unread(known, model)}
    config = model.config.to_dict() if hasattr(model.config, "to_dict") else dict(model.config)
    return config | {"quantization_config": said | {key: names for key, names in more.items() if names}}


@click.command(help=__doc__)
@click.option("--component", required=True, type=click.Choice(COMPONENTS))
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The pipeline folder to write.")
@click.option("--layers", type=click.IntRange(2), help="Layers instead of all: a rehearsal.")
def main(component: str, output: Path, layers: int | None) -> None:
    write_pressed(output, component, FULL.with_layers(layers) if layers else FULL)


if __name__ == "__main__":
    main()
