"""Pipelines whose JSON files begin with a byte order mark are read as those without."""

from __future__ import annotations

import codecs
import shutil
from pathlib import Path

import pytest
import torch

from edgepress.export.graph.tokenizer_files import resolve_tokenizer_files
from edgepress.pipelines.byte_order_marks import copy_without_mark, hide_byte_order_marks
from edgepress.pipelines.preflight import check_pipeline
from edgepress.pipelines.sampling import load_pipeline


@pytest.fixture(scope="module")
def marked(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny pipeline; all of its JSON files begin with a mark."""
    folder = tmp_path_factory.mktemp("marked") / "pipeline"
    shutil.copytree(tiny, folder)
    for file in folder.rglob("*.json"):
        file.write_bytes(codecs.BOM_UTF8 + file.read_bytes())
    return folder


def test_a_marked_pipeline_is_loaded_as_the_plain_one(marked: Path, tiny: Path) -> None:
    check_pipeline(marked)
    loaded, expected = load_pipeline(marked, torch.float32), load_pipeline(tiny, torch.float32)
    tensors = expected.transformer.state_dict()
    assert all(torch.equal(value, tensors[name]) for name, value in loaded.transformer.state_dict().items())
    assert loaded.tokenizer("a cat").input_ids == expected.tokenizer("a cat").input_ids
    assert loaded.scheduler.config == expected.scheduler.config


def test_its_tokenizer_is_exported_without_marks(marked: Path, tiny: Path) -> None:
    assert resolve_tokenizer_files(marked) == resolve_tokenizer_files(tiny)


def test_its_files_are_copied_without_marks(marked: Path, tiny: Path, tmp_path: Path) -> None:
    for name in ("model_index.json", "vae/diffusion_pytorch_model.safetensors"):
        copy_without_mark(marked / name, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == (tiny / name).read_bytes()


def test_a_plain_pipeline_is_read_where_it_is(tiny: Path) -> None:
    with hide_byte_order_marks(tiny) as folder:
        assert folder == tiny
