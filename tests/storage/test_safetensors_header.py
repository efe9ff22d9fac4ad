"""Headers are read as the library of the format reads them, and what is not one is an error that says so."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from edgepress.common.errors import UserError
from edgepress.storage.safetensors_header import read_tensor_headers


def write(file: Path, header: object, num_bytes: int = 0) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(num_bytes))
    return file


def test_names_dtypes_shapes_and_sizes_are_those_of_the_library(tmp_path: Path) -> None:
    tensors = {
        "a": torch.ones(3, 5),
        "b": torch.ones(2, dtype=torch.bfloat16),
        "c": torch.ones((), dtype=torch.int64),
        "d": torch.ones(0, 4),
        "e": torch.ones(7).to(torch.float8_e4m3fn),
    }
    file = tmp_path / "model.safetensors"
    save_file(tensors, file, {"format": "pt"})
    headers = {header.name: header for header in read_tensor_headers(file)}
    with safe_open(file, "pt") as stored:
        assert headers.keys() == set(stored.keys())
        for name, header in headers.items():
            assert header.shape == tuple(stored.get_slice(name).get_shape())
            assert header.dtype == stored.get_slice(name).get_dtype()
            assert header.nbytes == tensors[name].nbytes


@pytest.mark.parametrize(
    "header",
    [
        {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
        {"w": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"w": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}},
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0]}},
        {"w": {"dtype": "F32", "shape": [1]}},
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
        {"w": 1},
        {"w": {"dtype": "F32", "shape": [10**400], "data_offsets": [0, 4]}},
        [],
        b"[" * 100_000,
        b"\xff",
        b"",
    ],
)
def test_what_contradicts_itself_is_corrupt(header: object, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"w\.safetensors is corrupt or truncated"):
        read_tensor_headers(write(tmp_path / "w.safetensors", header, 4))


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (None, "it describes no tensor under the name 'w'"),
        ({"dtype": None}, "it describes no tensor under the name 'w'"),
        ({"dtype": "F32"}, "shape of 'w' is null instead of a list of whole numbers"),
        ({"dtype": "F32", "shape": [True]}, r"shape of 'w' is \[true\] instead of a list"),
        ({"dtype": "F32", "shape": [1], "data_offsets": None}, "data_offsets of 'w' is null instead of a list"),
        ({"dtype": "F32", "shape": [1], "data_offsets": [0]}, "data_offsets of 'w' are no beginning and end"),
    ],
)
def test_what_is_wrong_with_a_tensor_is_said_with_its_name(entry: object, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"w\.safetensors is corrupt or truncated \({reason}"):
        read_tensor_headers(write(tmp_path / "w.safetensors", {"w": entry}, 4))


def test_a_file_with_more_bytes_than_its_header_describes_is_corrupt(tmp_path: Path) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    file = write(tmp_path / "w.safetensors", {"w": entry}, 5)
    with pytest.raises(UserError, match=r"it has \d+ bytes, but its header describes \d+"):
        read_tensor_headers(file)


def test_a_git_lfs_pointer_is_named(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 123\n")
    with pytest.raises(UserError, match=r"model\.safetensors is a git-lfs pointer, not the file itself\. Run 'git lfs"):
        read_tensor_headers(file)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.text(max_size=3) | st.just("F32"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["w", "dtype", "shape", "data_offsets", "__metadata__"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(JSON | st.binary(max_size=40), st.integers(0, 12))
def test_any_header_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, header: object, size: int) -> None:
    """What the library of the format accepts is accepted, and everything else ends in a sentence."""
    file = write(tmp_path_factory.mktemp("fuzz") / "w.safetensors", header, size)
    try:
        headers = read_tensor_headers(file)
    except UserError:
        with pytest.raises(SafetensorError), safe_open(file, "pt"):
            pass
    else:
        assert all(header.nbytes <= size for header in headers)
