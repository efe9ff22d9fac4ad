"""Paths in files that others write: none leads out of the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from edgepress.storage.relative_path import FileName, RelativePath, is_relative_path


@pytest.mark.parametrize("path", ["a", "a/b.safetensors", ".hidden", "a b/ü", "...", "a..b", "x:y"])
def test_paths_below_the_folder_are_accepted(path: str) -> None:
    assert is_relative_path(path)
    assert TypeAdapter(RelativePath).validate_python(path) == path


@pytest.mark.parametrize(
    "path", ["", "/", "/etc/passwd", "..", "../a", "a/../../b", "a/..", "./a", "a//b", "a/", "a\\..\\b", "C:/a", "a\0b"]
)
def test_others_are_rejected(path: str) -> None:
    assert not is_relative_path(path)
    with pytest.raises(ValidationError, match="is not a path below this folder"):
        TypeAdapter(RelativePath).validate_python(path)


@pytest.mark.parametrize("name", ["a/b", "/a", "a\\b", "..", ""])
def test_a_name_has_no_folder(name: str) -> None:
    with pytest.raises(ValidationError, match="is not the name of a file in this folder"):
        TypeAdapter(FileName).validate_python(name)


@given(st.text(alphabet="./\\ab:\0", max_size=12))
def test_no_accepted_path_leaves_the_folder(path: str) -> None:
    if is_relative_path(path):
        root = Path("/root/artifact")
        assert (root / path).is_relative_to(root)
        assert ".." not in (root / path).parts
