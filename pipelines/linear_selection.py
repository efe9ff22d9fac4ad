"""Decides which layers of a component are quantized, from its classes and names alone: no data, no weights.

Quantized are the linears in repeated blocks: members of a `ModuleList` of which several have the same class. That is
where almost all weights of a transformer or U-Net are. What turns timesteps and conditions into scales and shifts, what
embeds inputs, and what chooses experts is small, and errors there reach every token; it stays in floating point, and so
does everything outside the blocks. A family can overrule these rules. Convolutions in the blocks may be stored in 8
bits.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from torch import nn
from torch.nn.modules.conv import _ConvNd

from ..models.base.family import Component
from ..numerics.quant_spec import can_be_packed
from .quantized_modules import CONVOLUTIONS

CONTAINERS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
# Parts of the names of modules inside blocks, and of their classes.
MODULATION_NAME = re.compile(r"norm|ada_?ln|modulat|(^|_)mod(\d|_|$)|film")
MODULATION_CLASS = re.compile(r"(Norm|Modulat|AdaLN|FiLM)(?!\w*Block$)")  # a block may be called after its norms
EMBEDDER_NAME = re.compile(r"embed|(^|_)t?emb(_|$)")
EMBEDDER_CLASS = re.compile(r"Embed|TextProjection|TimestepBlock")
ROUTER_NAME = re.compile(r"^(gate|router|gating)$")
EXPERTS_CLASS = re.compile(r"MoE|Moe|Sparse|Expert|Router")
IMAGE_TOWER_NAME = re.compile(r"^(vision|image_encoder|audio|siglip)")
VISUAL_NAME = re.compile(r"^visual")  # such a tower too, but in a denoiser what makes the image


class KeepReason(StrEnum):
    """Why a linear layer stays in floating point."""

    OUTSIDE = "outside the repeated blocks"
    MODULATION = "part of a norm or of the modulation"
    EMBEDDER = "embeds timesteps, positions or conditions"
    ROUTER = "chooses experts"
    IMAGE_TOWER = "reads images, not the prompt"
    SPECIAL = "no plain linear layer"
    FUSED = "several experts in one tensor"
    WIDTH = "input width not a multiple of 32, or output width not a multiple of 8"
    FAMILY = "kept by the description of its family"
    SPECIAL_CONVOLUTION = "no plain convolution with zeros around its input"
    GROUPED = "grouped: too few weights for a scale"
    SHARED = "shared by two modules"


@dataclass(frozen=True)
class BlockLinears:
    """A repeated block, and the linears in it that are quantized. Those of a block inside it are not among them.

    Attributes:
        path: The block's path in the component.
        linears: Paths relative to the block, in the order of the class.
    """

    path: str
    linears: tuple[str, ...]


@dataclass(frozen=True)
class LinearSelection:
    """Which linears of a component are quantized.

    Attributes:
        blocks: The blocks that have any, in the order of the class.
        repeated: Paths of all repeated blocks, also of those without such linears.
        kept_linears: Why each other linear stays in floating point, by its path. Experts whose matrices are one tensor
            are among them.
        weights: Number of weights of each linear, by its path.
    """

    blocks: tuple[BlockLinears, ...]
    repeated: tuple[str, ...]
    kept_linears: Mapping[str, KeepReason]
    weights: Mapping[str, int]

    @property
    def quantized(self) -> list[str]:
        """Paths of the quantized linears in the component."""
        return [f"{block.path}.{linear}" for block in self.blocks for linear in block.linears]


def select_linears(model: nn.Module, component: Component) -> LinearSelection:
    """Selects the linears of a component that are quantized.

    Args:
        model: The component, with or without weights.
        component: Its description, which may overrule the general rules.
    """
    repeated = find_repeated_blocks(model)
    paths = set(repeated)
    linears: dict[str, list[str]] = {path: [] for path in repeated}
    kept_linears, weights = {}, {}
    for path, module in model.named_modules():
        if not isinstance(module, nn.Linear):
            for name, shape in _list_fused_experts(path, module).items():
                kept_linears[name], weights[name] = KeepReason.FUSED, math.prod(shape)
            continue
        weights[path] = module.in_features * module.out_features
        blocks = [prefix for prefix in _prefixes(path) if prefix in paths]
        reason = _find_reason(model, path, module, blocks, component)
        if reason is None:
            linears[blocks[-1]].append(path.removeprefix(f"{blocks[-1]}."))
        else:
            kept_linears[path] = reason
    selected = tuple(BlockLinears(path, tuple(names)) for path, names in linears.items() if names)
    return LinearSelection(selected, repeated, kept_linears, weights)


def find_repeated_blocks(model: nn.Module) -> tuple[str, ...]:
    """Finds the blocks of a model that are there several times: paths, in the order of the class.

    A block can be inside another one, as in a U-Net. Lists of plain layers and of mixed parts, such as the two layers
    of a feed-forward, are no blocks; a list of a single module is.
    """
    blocks = []
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList):
            children = dict(module.named_children())  # without those that are None, as in a VAE without attention
            classes = Counter(map(type, children.values()))
            for index, child in children.items():
                is_repeated = classes[type(child)] > 1 or len(classes) == 1
                if is_repeated and not isinstance(child, CONTAINERS) and any(True for _ in child.children()):
                    blocks.append(f"{path}.{index}".removeprefix("."))
    return tuple(blocks)


def _list_fused_experts(path: str, module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Lists the shapes of the weights of a module that are the matrices of several experts in one tensor."""
    if not EXPERTS_CLASS.search(type(module).__name__):
        return {}
    weights = module.named_parameters(recurse=False)
    return {f"{path}.{name}": tuple(weight.shape) for name, weight in weights if weight.ndim == 3}


def select_convolutions(model: nn.Module, repeated: Sequence[str]) -> tuple[str, ...]:
    """Selects the convolutions of a component that may be stored in 8 bits: the plain ones in repeated blocks.

    Grouped ones are left out: a few weights for each channel are not worth a scale. Those that two modules share are
    too, since a file has them twice.

    Args:
        model: The component, with or without weights.
        repeated: Paths of its repeated blocks.

    Returns:
        Their paths, in the order of the class.
    """
    return tuple(path for path, reason in explain_convolutions(model, repeated).items() if reason is None)


def explain_convolutions(model: nn.Module, repeated: Sequence[str]) -> dict[str, KeepReason | None]:
    """Returns why each convolution of a component is kept, by path; None for those that `select_convolutions` returns.

    Args:
        model: The component, with or without weights.
        repeated: Paths of its repeated blocks.
    """
    modules = list(model.named_modules(remove_duplicate=False))
    counts, paths = Counter(id(module) for _, module in modules), set(repeated)
    reasons: dict[str, KeepReason | None] = {}
    for path, module in modules:
        if not isinstance(module, _ConvNd):
            continue
        block = next((prefix for prefix in _prefixes(path) if prefix in paths), None)
        if block is None:
            reasons[path] = KeepReason.OUTSIDE
        elif type(module) not in CONVOLUTIONS or module.padding_mode != "zeros":
            reasons[path] = KeepReason.SPECIAL_CONVOLUTION
        elif module.groups != 1:
            reasons[path] = KeepReason.GROUPED
        elif counts[id(module)] != 1:
            reasons[path] = KeepReason.SHARED
        else:
            reasons[path] = _find_role(model, path, block)
    return reasons


def _find_reason(
    model: nn.Module, path: str, linear: nn.Linear, blocks: Sequence[str], component: Component
) -> KeepReason | None:
    """Returns why a linear is kept; None if it is quantized.

    Args:
        blocks: The repeated blocks that it is in, the outermost first.
    """
    if type(linear) is not nn.Linear:
        return KeepReason.SPECIAL
    if _matches(component.kept_linears, path):
        return KeepReason.FAMILY
    if not blocks:
        return KeepReason.OUTSIDE
    if not can_be_packed(linear.out_features, linear.in_features):
        return KeepReason.WIDTH
    if _matches(component.quantized_linears, path):
        return None
    if component.role != "denoiser" and any(map(VISUAL_NAME.search, path.split("."))):
        return KeepReason.IMAGE_TOWER
    return _find_role(model, path, blocks[0])


def _find_role(model: nn.Module, path: str, block: str) -> KeepReason | None:
    """Returns what a linear does that forbids quantizing it, by the names and classes on the path to it."""
    if any(IMAGE_TOWER_NAME.search(name) for name in path.split(".")):
        return KeepReason.IMAGE_TOWER
    inner = path.removeprefix(f"{block}.")
    names = inner.lower().split(".")
    classes = [type(model.get_submodule(block)).__name__]
    classes += [type(model.get_submodule(f"{block}.{prefix}")).__name__ for prefix in _prefixes(inner)]
    if any(map(MODULATION_NAME.search, names)) or any(map(MODULATION_CLASS.search, classes)):
        return KeepReason.MODULATION
    if any(map(EMBEDDER_NAME.search, names)) or any(map(EMBEDDER_CLASS.search, classes)):
        return KeepReason.EMBEDDER
    if ROUTER_NAME.search(names[-1]) and EXPERTS_CLASS.search(classes[-1]):
        return KeepReason.ROUTER
    return None


def _prefixes(path: str) -> Iterator[str]:
    """Yields the paths of the modules that a module is in, the outermost first."""
    names = path.split(".")
    for length in range(1, len(names)):
        yield ".".join(names[:length])


def _matches(patterns: Sequence[str], path: str) -> bool:
    return any(re.search(pattern, path) for pattern in patterns)
