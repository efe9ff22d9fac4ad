"""Exports without the graphs that decode in tiles, which have their own tests and take long to trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from edgepress.export.graph import source_model
from edgepress.models.base.family import Family
from edgepress.models.registry import get_family
from edgepress.models.shared.vae_tiling import VAE_TILE_GRAPHS


@contextmanager
def without_tile_graphs() -> Iterator[None]:
    """Leaves these graphs out of all families while exporting."""

    def get_family_without_tiles(pipeline_class: str) -> Family:
        family = get_family(pipeline_class)
        names = {graph.name for graph in VAE_TILE_GRAPHS}
        return replace(family, graphs=tuple(graph for graph in family.graphs if graph.name not in names))

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(source_model, "get_family", get_family_without_tiles)
        yield
