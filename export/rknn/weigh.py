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

from ...models.graphs import Graph
from ...models.npu import Part
from ..onnx.trace import PREFIX, empty_component, fake_module


@dataclass(frozen=True)
class Weighed:
    """sizes: how many numbers each weight that it uses holds, by name. live: numbers of activations that are there at
    once, inputs too, at most, in the order in which torch computes."""

    sizes: Mapping[str, int]
    live: int

    @property
    def parameters(self) -> int:
        return sum(self.sizes.values())


def weigh(part: Part, folder: Path, sizes: Mapping[str, int]) -> Weighed:
    """A part of a component folder, of which only config.json is read, and only once. Attention has all its scores.

    Args:
        sizes: of the axes.

    Raises:
        UserError: the folder has no config.json that names a known class.
    """
    return _weighed(part.graph, part.blocks, folder, tuple(sorted(sizes.items())))


@cache
def _weighed(graph: Graph, blocks: range | None, folder: Path, sizes: tuple[tuple[str, int], ...]) -> Weighed:
    from torch._subclasses.fake_tensor import FakeTensorMode

    component = empty_component(folder)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FakeTensorMode(allow_non_fake_inputs=True), _Watch() as watch:
        module = fake_module(graph, component, torch.float32, blocks)
        watch.begin(module)
        module(*module.example(dict(sizes)))
    names = {name: each.numel() for name, each in module.named_parameters() if id(each) in watch.used}
    return Weighed({name.removeprefix(PREFIX): size for name, size in names.items()}, watch.most)


class _Watch(TorchDispatchMode):
    """Notes which parameters are used, and how many numbers live in tensors that operations made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.used: set[int] = set()
        self.most = 0
        self._alive = 0
        self._owners: Counter[int] = Counter()  # tensors by storage: views share one
        self._given: set[int] | None = None

    def begin(self, module: nn.Module) -> None:
        """Counts from here; parameters are no activations."""
        self._given = {_storage(parameter) for parameter in module.parameters()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if self._given is not None:
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, nn.Parameter):
                    self.used.add(id(leaf))
            for leaf in tree_leaves(made):
                if isinstance(leaf, Tensor):
                    self._see(leaf)
        return made

    def _see(self, tensor: Tensor) -> None:
        storage = _storage(tensor)
        if self._given is not None and storage not in self._given:
            if not self._owners[storage]:
                self._alive += _numbers(tensor)
                self.most = max(self.most, self._alive)
            self._owners[storage] += 1
            weakref.finalize(tensor, self._gone, storage, _numbers(tensor))

    def _gone(self, storage: int, numbers: int) -> None:
        self._owners[storage] -= 1
        if not self._owners[storage]:
            self._alive -= numbers


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _numbers(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes() // tensor.element_size()
