"""Tokens that a text encoder has no embedding for are found before any work, and not by an index error in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgepress.common.errors import UserError
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.pipelines.preflight import check_pipeline


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """The demo's folder, whose weights are links."""
    links = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(DEMO_PIPELINE, tmp_path / "pipeline", ignore=links)
    for file in DEMO_PIPELINE.glob("*/*.safetensors"):
        (tmp_path / "pipeline" / file.relative_to(DEMO_PIPELINE)).symlink_to(file)
    return tmp_path / "pipeline"


def edit(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(file.read_text("utf-8"))
    change(content)
    file.write_text(json.dumps(content), "utf-8")


def test_a_vocabulary_beyond_the_embeddings(pipeline: Path) -> None:
    edit(pipeline / "text_encoder" / "config.json", lambda config: config.update(vocab_size=300))
    with pytest.raises(UserError, match=r"tokenizer\.json has the token '.+' with an id beyond the 300 embeddings"):
        check_pipeline(pipeline)


def test_a_multimodal_config_has_the_size_in_a_section(pipeline: Path) -> None:
    edit(
        pipeline / "text_encoder" / "config.json",
        lambda config: config.update(text_config={"vocab_size": config.pop("vocab_size")}),
    )
    check_pipeline(pipeline)
    edit(pipeline / "text_encoder" / "config.json", lambda config: config["text_config"].update(vocab_size=300))
    with pytest.raises(UserError, match="beyond the 300 embeddings"):
        check_pipeline(pipeline)


@pytest.mark.parametrize(("content", "is_refused"), [("<|im_end|>", True), ("<|nowhere|>", False)])
def test_an_added_token_counts_where_something_names_it(pipeline: Path, content: str, is_refused: bool) -> None:
    """The chat template of the demo ends each message with the first one."""
    edit(
        pipeline / "tokenizer" / "tokenizer.json",
        lambda tokenizer: tokenizer["added_tokens"].append({"id": 10_000, "content": content}),
    )
    if not is_refused:
        check_pipeline(pipeline)
        return
    with pytest.raises(UserError, match=r"the token '<\|im_end\|>' with an id beyond the 456 embeddings"):
        check_pipeline(pipeline)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.json", {"a": 0, "b": 500}),
        ("tokenizer.json", {"model": {"vocab": [["a", 0.0]] * 500}}),
        ("tokenizer.json", {"model": {"vocab": ["a"] * 500}}),
    ],
)
def test_vocabularies_of_every_form(pipeline: Path, name: str, content: Any) -> None:
    (pipeline / "tokenizer" / "tokenizer.json").unlink()
    (pipeline / "tokenizer" / name).write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"{name} has the token '[ab]' with an id beyond the 456 embeddings"):
        check_pipeline(pipeline)


def test_a_tokenizer_that_is_no_json(pipeline: Path) -> None:
    (pipeline / "tokenizer" / "tokenizer.json").write_text("<html>")
    with pytest.raises(UserError, match=r"tokenizer\.json is no JSON object\. Download the model again"):
        check_pipeline(pipeline)
