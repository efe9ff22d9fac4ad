"""Headers of GGUF files, compared with those that the package gguf writes and reads."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from edgepress.common.errors import UserError
from edgepress.storage.gguf_header import read_gguf_header


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with metadata of every kind and two tensors."""
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "lumina2")
    writer.add_uint32("a.number", 7)
    writer.add_float32("a.float", 0.5)
    writer.add_bool("a.flag", True)
    writer.add_array("a.texts", ["x", "yy", ""])
    writer.add_array("a.numbers", [1, 2, 3])
    writer.add_tensor("plain.weight", np.ones((3, 4), np.float32))
    rows = gguf.quants.quantize(
        np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 64), gguf.GGMLQuantizationType.Q8_0
    )
    writer.add_tensor("quantized.weight", rows, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_header_is_that_which_the_package_reads(file: Path) -> None:
    header, reader = read_gguf_header(file), gguf.GGUFReader(file)
    assert header.architecture == "lumina2"
    assert [(tensor.name, tensor.shape, tensor.type, tensor.start) for tensor in header.tensors] == [
        (tensor.name, tuple(map(int, tensor.shape[::-1])), tensor.tensor_type.value, tensor.data_offset)
        for tensor in reader.tensors
    ]
    assert header.tensors[1].shape == (2, 64)


def test_every_truncation_of_the_header_is_named(file: Path) -> None:
    content = file.read_bytes()
    end = read_gguf_header(file).tensors[0].start
    for length in range(0, end - gguf.GGUF_DEFAULT_ALIGNMENT, 7):
        file.write_bytes(content[:length])
        with pytest.raises(UserError, match="is no GGUF file that can be read"):
            read_gguf_header(file)


@pytest.mark.parametrize(
    ("start", "damage", "reason"),
    [
        (0, b"GGML", "does not begin with GGUF"),
        (4, (1).to_bytes(4, "little"), "its version is 1"),
        (8, b"\xff" * 8, "entries"),
        (24, b"\xff" * 8, "text has"),
    ],
)
def test_damage_is_named(file: Path, start: int, damage: bytes, reason: str) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:start] + damage + content[start + len(damage) :])
    with pytest.raises(UserError, match=reason):
        read_gguf_header(file)


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(UserError, match="git lfs pull"):
        read_gguf_header(tmp_path / "x.gguf")
