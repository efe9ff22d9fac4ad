"""Tokenizers that cannot be loaded, or make nothing of a text, are found before any work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgepress.common.errors import UserError
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.pipelines.tokenizer_loading import check_tokenizers


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """What a tokenizer is loaded from."""
    shutil.copytree(DEMO_PIPELINE / "tokenizer", tmp_path / "tokenizer")
    shutil.copyfile(DEMO_PIPELINE / "model_index.json", tmp_path / "model_index.json")
    return tmp_path


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | changes), "utf-8")


def test_a_sound_tokenizer_passes(pipeline: Path) -> None:
    check_tokenizers(pipeline)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pre_tokenizer": {"type": "Nothing"}}, "cannot be loaded as Qwen2Tokenizer"),
        ({"model": {"type": "BPE", "vocab": {}, "merges": []}}, "makes no tokens"),
    ],
)
def test_what_fails_later_is_refused(pipeline: Path, changes: dict[str, Any], message: str) -> None:
    edit(pipeline / "tokenizer" / "tokenizer.json", **changes)
    with pytest.raises(UserError, match=rf"{message}.* Download the model again"):
        check_tokenizers(pipeline)


def test_a_class_that_transformers_has_not(pipeline: Path) -> None:
    edit(pipeline / "model_index.json", tokenizer=["transformers", "FooTokenizer"])
    with pytest.raises(UserError, match=r"model_index\.json names a 'FooTokenizer' for 'tokenizer', but transformers"):
        check_tokenizers(pipeline)


@pytest.mark.parametrize("name", ["FooTokenizer", 3, None])
def test_the_class_of_the_index_is_loaded_whatever_the_config_says(pipeline: Path, name: Any) -> None:
    edit(pipeline / "tokenizer" / "tokenizer_config.json", tokenizer_class=name)
    check_tokenizers(pipeline)
