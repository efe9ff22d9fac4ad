"""Builds the module that computes a graph around a component without weights."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from ...models.base.graph import Graph

WEIGHT_PREFIX = "model."  # the attribute under which a family's graph modules hold their component


def build_module(graph: Graph, component: nn.Module, blocks: range | None) -> Any:
    """Builds the graph's module around a component."""
    name, _, cls = graph.module.partition(":")
    module = getattr(importlib.import_module(name), cls)
    choice = graph.read_blocks or blocks
    return module(*((component,) if choice is None else (component, choice))).eval()


def make_parameters_fake(component: nn.Module, dtype: torch.dtype) -> None:
    """Replaces parameters on the meta device by ones of the active FakeTensorMode, in place."""
    for name, parameter in list(component.named_parameters()):
        owner, _, attribute = name.rpartition(".")
        empty = nn.Parameter(torch.empty_like(parameter, dtype=dtype, device="cpu"), requires_grad=False)
        setattr(component.get_submodule(owner), attribute, empty)
