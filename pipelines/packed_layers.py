"""Weights that other libraries quantized: whether the files hold all of every layer. Only headers are read.

The libraries themselves only warn, and fill what is missing with random numbers. Layouts differ, so only what they have
in common is compared: names of layers, and the parts that packed codes never go without.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate

from torch import nn

from ..common.errors import UserError
from ..storage.checkpoint import Checkpoint
from ..storage.recovery import advise_recovery

METHODS = ("auto-round", "bitsandbytes", "compressed-tensors", "gptq", "hqq", "quanto", "sdnq", "torchao")
# What a layer has beside a part, in the layouts of AWQ and GPTQ and in that of compressed-tensors.
COMPANIONS = {
    "qweight": "scales",
    "scales": "qweight",
    "qzeros": "qweight",
    "weight_packed": "weight_scale",
    "weight_shape": "weight_packed",
}


def require_whole_layers(checkpoint: Checkpoint) -> None:
    """Checks that packed layers have all their parts.

    Raises:
        UserError: A part is missing.
    """
    for name in checkpoint.names():
        layer, _, part = name.rpartition(".")
        companion = f"{layer}.{COMPANIONS[part]}" if part in COMPANIONS else name
        if companion not in checkpoint:
            raise _report_missing(companion, checkpoint)


def require_all_layers(
    checkpoint: Checkpoint, module: nn.Module, optional: Collection[str], unused_modules: Sequence[str]
) -> None:
    """Checks that no layer of a component is missing, whatever its weights are stored as.

    Args:
        checkpoint: The component's weights.
        module: The component without quantization and without weights.
        optional: The names of weights that may be missing.
        unused_modules: Modules that may be missing.

    Raises:
        UserError: A layer is missing, or its bias.
    """
    stored = {prefix for name in checkpoint.names() for prefix in _iter_prefixes(name)}
    unused = tuple(f"{name}." for name in unused_modules)
    for name in module.state_dict():
        layer, _, part = name.rpartition(".")
        is_stored = name in stored or (part == "weight" and layer in stored)
        if not is_stored and name not in optional and not name.startswith(unused):
            raise _report_missing(name, checkpoint)


def _iter_prefixes(name: str) -> Iterator[str]:
    """`a`, `a.b` and `a.b.weight` of `a.b.weight`; of a bias only the whole, since it does not stand for its layer."""
    if name.endswith(".bias"):
        yield name
    else:
        yield from accumulate(name.split("."), lambda prefix, part: f"{prefix}.{part}")


def _report_missing(name: str, checkpoint: Checkpoint) -> UserError:
    return UserError(
        f"Weight {name!r}, required by config.json, is missing from {checkpoint.folder}. "
        f"{advise_recovery(checkpoint.folder)}"
    )
