from __future__ import annotations

import dataclasses

import pytest

from edgepress.models.base.family import Block, Family, Fold
from edgepress.models.base.graph import Graph
from edgepress.models.registry import get_family


def test_component_is_looked_up_by_name() -> None:
    family = get_family("ZImagePipeline")
    transformer = family.component("transformer")
    assert transformer is not None
    assert transformer.name == "transformer"
    assert family.component("scheduler") is None


def test_optional_graphs_are_not_among_the_graphs() -> None:
    graphs = [Graph(name, "vae", "", (), ()) for name in ("decoder", "encoder")]
    family = Family("SomePipeline", "transformer", graphs=(graphs[0],), optional_graphs=(graphs[1],))
    assert (family.graph("decoder"), family.graph("encoder")) == (graphs[0], None)


def test_family_is_immutable() -> None:
    family = get_family("ZImagePipeline")
    for value, field in [
        (family, "pipeline_class"),
        (family.components[0], "unused_blocks"),
        (family.components[0].blocks[0], "path"),
    ]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field, None)


def test_linears_of_a_block_are_those_of_its_folds() -> None:
    block = Block("layers.*", (Fold("norm", ("q", "k"), "norm"), Fold("v", ("out",), "rows")))
    assert block.linears == ("q", "k", "out")
