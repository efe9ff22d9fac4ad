"""Names of tensors in single files, as data."""

from __future__ import annotations

import pytest

from edgepress.common.errors import UserError
from edgepress.models.base.single_file import FileTensor, FusedRows, SingleFileNames


def test_a_missing_part_of_a_fused_layer_is_named() -> None:
    names = SingleFileNames(fused=(FusedRows((".q.weight", ".k.weight"), ".qk.weight"),))
    with pytest.raises(UserError, match=r"The tensor 'a\.k\.weight' is missing beside 'a\.q\.weight'"):
        names.group(["a.q.weight", "b.weight"])


def test_tensors_are_renamed_fused_swapped_and_omitted() -> None:
    names = SingleFileNames(
        renames=((r"^block\.", "b."),),
        fused=(FusedRows((".q", ".k"), ".qk"),),
        swapped=r"\.modulation$",
        omitted=r"\.unused$",
    )
    assert names.group(["block.k", "block.q", "block.modulation", "block.unused"]) == {
        "b.qk": FileTensor(("block.q", "block.k")),
        "b.modulation": FileTensor(("block.modulation",), has_swapped_halves=True),
    }
