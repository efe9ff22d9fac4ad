"""What a part holds and works with, told by running it on tensors that have shapes and no data."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ....models.base.graph import Graph
from ....models.base.npu import GraphPart
from ...graph.trace import WEIGHT_PREFIX, build_empty_component, build_fake_module


@dataclass(frozen=True)
class Footprint:
    """sizes: how many numbers each weight that it uses holds, by name. live: numbers of activations that are there at
    once, inputs too, at most, in the order in which torch computes."""

    weight_elements: Mapping[str, int]
    live_elements: int

    @property
    def parameters(self) -> int:
        return sum(self.weight_elements.values())


def measure_footprint(part: GraphPart, folder: Path, axis_sizes: Mapping[str, int]) -> Footprint:
    """A part of a component folder, of which only config.json is read, and only once. Attention has all its scores.

    Args:
        sizes: of the axes.

    Raises:
        UserError: the folder has no config.json that names a known class.
    """
    return _measure_footprint(part.graph, part.blocks, folder, tuple(sorted(axis_sizes.items())))


@cache
def _measure_footprint(
    graph: Graph, blocks: range | None, folder: Path, sizes: tuple[tuple[str, int], ...]
) -> Footprint:
    from torch._subclasses.fake_tensor import FakeTensorMode

    component = build_empty_component(folder)
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        FakeTensorMode(allow_non_fake_inputs=True),
        _LiveTensorCounter() as watch,
    ):
        module = build_fake_module(graph, component, torch.float32, blocks)
        watch.start(module)
        module(*module.example(dict(sizes)))
    names = {name: each.numel() for name, each in module.named_parameters() if id(each) in watch.used_parameters}
    return Footprint({name.removeprefix(WEIGHT_PREFIX): size for name, size in names.items()}, watch.peak_elements)


class _LiveTensorCounter(TorchDispatchMode):
    """Notes which parameters are used, and how many numbers live in tensors that operations made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.used_parameters: set[int] = set()
        self.peak_elements = 0
        self._live_elements = 0
        self._tensors_by_storage: Counter[int] = Counter()  # tensors by storage: views share one
        self._parameter_storages: set[int] | None = None

    def start(self, module: nn.Module) -> None:
        """Counts from here; parameters are no activations."""
        self._parameter_storages = {_get_storage_id(parameter) for parameter in module.parameters()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if self._parameter_storages is not None:
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, nn.Parameter):
                    self.used_parameters.add(id(leaf))
            for leaf in tree_leaves(made):
                if isinstance(leaf, Tensor):
                    self._track(leaf)
        return made

    def _track(self, tensor: Tensor) -> None:
        storage = _get_storage_id(tensor)
        if self._parameter_storages is not None and storage not in self._parameter_storages:
            if not self._tensors_by_storage[storage]:
                self._live_elements += _count_elements(tensor)
                self.peak_elements = max(self.peak_elements, self._live_elements)
            self._tensors_by_storage[storage] += 1
            weakref.finalize(tensor, self._release, storage, _count_elements(tensor))

    def _release(self, storage: int, numbers: int) -> None:
        self._tensors_by_storage[storage] -= 1
        if not self._tensors_by_storage[storage]:
            self._live_elements -= numbers


def _get_storage_id(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _count_elements(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes() // tensor.element_size()
