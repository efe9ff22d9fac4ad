"""Measures the footprint of a part: its parameters, the peak of its activations, and its operations.

The part runs once on fake tensors, which have shapes and dtypes but no data.
"""

from __future__ import annotations

import json
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
from torch.utils.flop_counter import flop_registry, sdpa_flop_count

from ...models.base.graph import Graph
from ...models.base.npu import GraphPart
from ...pipelines.empty_modules import build_empty_component, load_component_config
from ..graph.graph_module import WEIGHT_PREFIX, build_module, make_parameters_fake

LINEAR_OPERATORS = (torch.ops.aten.mm, torch.ops.aten.addmm)  # what linear layers become
CONVOLUTION = torch.ops.aten.convolution

FUSED_ATTENTION = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # which torch does not count


@dataclass(frozen=True)
class Footprint:
    """The size of a part.

    Attributes:
        weight_elements: Number of elements of each weight that the part uses, by name.
        live_elements: Largest number of activation elements, inputs included, that are alive at one time when torch
            runs the part.
        linear_flops: Operations of products with weights of linear layers; a multiplication and an addition are two.
        other_flops: Operations of attention and of convolutions.
        output_shapes: Shapes of its outputs.
        convolution_weights: Names of the weights that convolutions read.
        convolution_flops: Operations of convolutions, which `other_flops` has too.
    """

    weight_elements: Mapping[str, int]
    live_elements: int
    linear_flops: int = 0
    other_flops: int = 0
    output_shapes: tuple[tuple[int, ...], ...] = ()
    convolution_weights: frozenset[str] = frozenset()
    convolution_flops: int = 0

    @property
    def parameters(self) -> int:
        """Number of elements of all weights."""
        return sum(self.weight_elements.values())


def measure_footprint(
    part: GraphPart, folder: Path, axis_sizes: Mapping[str, int], has_fused_attention: bool = False
) -> Footprint:
    """Measures a part. Equal parts are measured once per process.

    Args:
        part: The part to measure.
        folder: Folder of its component; only its config.json is read.
        axis_sizes: Size of every axis that the graph names.
        has_fused_attention: Whether attention is computed block by block; otherwise all its scores exist at once.

    Raises:
        UserError: The folder has no config.json that names a known class.
    """
    config = json.dumps(load_component_config(folder), sort_keys=True)
    sizes = tuple(sorted(axis_sizes.items()))
    return _measure_footprint(part.graph, part.blocks, folder, config, sizes, has_fused_attention)


@cache
def _measure_footprint(
    graph: Graph,
    blocks: range | None,
    folder: Path,
    config: str,
    axis_sizes: tuple[tuple[str, int], ...],
    has_fused_attention: bool,
) -> Footprint:
    fake_mode, component = _build_fake_component(folder, config, graph.module)
    backends = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH] if has_fused_attention else [SDPBackend.MATH]
    with torch.no_grad(), sdpa_kernel(backends), fake_mode, _OperationCounter() as counter:
        module = build_module(graph, component, blocks)
        counter.start(module)
        outputs = module(*module.example(dict(axis_sizes)))
    parameters = {
        name.removeprefix(WEIGHT_PREFIX): parameter
        for name, parameter in module.named_parameters()
        if id(parameter) in counter.used_parameters
    }
    return Footprint(
        weight_elements={name: parameter.numel() for name, parameter in parameters.items()},
        live_elements=counter.peak_elements,
        linear_flops=counter.linear_flops,
        other_flops=counter.other_flops,
        output_shapes=tuple(tuple(map(int, output.shape)) for output in tree_leaves(outputs)),
        convolution_weights=frozenset(
            name for name, parameter in parameters.items() if _get_storage_id(parameter) in counter.convolution_storages
        ),
        convolution_flops=counter.convolution_flops,
    )


@cache
def _build_fake_component(folder: Path, config: str, module: str) -> tuple[Any, nn.Module]:  # noqa: ARG001  of the key
    """Builds a component with fake parameters once for all parts that one module runs, and its FakeTensorMode.

    For large components this takes as long as running a part. Modules of another kind may change the component.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    fake_mode, component = FakeTensorMode(allow_non_fake_inputs=True), build_empty_component(folder)
    with fake_mode:
        make_parameters_fake(component, torch.float32)
    return fake_mode, component


class _OperationCounter(TorchDispatchMode):
    """Records which parameters operations read, what they compute, and how many elements their outputs keep alive.

    Attributes:
        used_parameters: `id` of every parameter that was read.
        peak_elements: Largest number of elements alive so far.
        linear_flops: As in `Footprint`.
        other_flops: As in `Footprint`.
        convolution_storages: The storages of the weights of convolutions, of which some are views of parameters.
        convolution_flops: As in `Footprint`.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.used_parameters: set[int] = set()
        self.peak_elements = self.linear_flops = self.other_flops = self.convolution_flops = 0
        self.convolution_storages: set[int] = set()
        self._live_elements = 0
        self._tensors_by_storage: Counter[int] = Counter()  # views share a storage
        self._parameter_storages: set[int] | None = None

    def start(self, module: nn.Module) -> None:
        """Starts counting. Parameters of `module` do not count as activations."""
        self._parameter_storages = {_get_storage_id(parameter) for parameter in module.parameters()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        if self._parameter_storages is not None:
            for leaf in tree_leaves((args, kwargs)):
                if isinstance(leaf, nn.Parameter):
                    self.used_parameters.add(id(leaf))
            for leaf in tree_leaves(outputs):
                if isinstance(leaf, Tensor):
                    self._track(leaf)
            self._count_flops(func._overloadpacket, args, kwargs or {}, outputs)
        return outputs

    def _count_flops(self, operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> None:
        """Counts what torch's own counter of operations counts."""
        formula = flop_registry.get(operator)
        flops = int(formula(*args, **kwargs, out_val=outputs)) if formula else 0
        if operator is FUSED_ATTENTION:
            flops = int(sdpa_flop_count(*(tensor.shape for tensor in args[:3])))
        if operator in LINEAR_OPERATORS:
            self.linear_flops += flops
        else:
            self.other_flops += flops
        if operator is CONVOLUTION:
            self.convolution_flops += flops
            self.convolution_storages.add(_get_storage_id(args[1]))

    def _track(self, tensor: Tensor) -> None:
        storage = _get_storage_id(tensor)
        if self._parameter_storages is not None and storage not in self._parameter_storages:
            if not self._tensors_by_storage[storage]:
                self._live_elements += _count_elements(tensor)
                self.peak_elements = max(self.peak_elements, self._live_elements)
            self._tensors_by_storage[storage] += 1
            weakref.finalize(tensor, self._release, storage, _count_elements(tensor))

    def _release(self, storage: int, elements: int) -> None:
        self._tensors_by_storage[storage] -= 1
        if not self._tensors_by_storage[storage]:
            self._live_elements -= elements


def _get_storage_id(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _count_elements(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes() // tensor.element_size()
