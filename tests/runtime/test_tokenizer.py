"""Token ids held against the pipeline's own tokenizer, padding and mask."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from edgepress.common.errors import UserError
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.runtime.tokenizer import PromptTokenizer

TEXTS = [
    "", " ", "a cat", 'a striped white wall, large red letters, top: "OPEN"', "平整白墙上方橙色大字：“青春 安家”",
    "two\nlines\r\nand\ttabs  and   spaces ", "cafe\u0301 \U0001f600 <|im_end|> {{ messages }} {% raw %}",
    "x" * 300, "字" * 90,
]  # fmt: skip
FILES = ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json")


def reader(pipeline: Path, longest: int = 512) -> PromptTokenizer:
    return PromptTokenizer(pipeline / "tokenizer", {"enable_thinking": True}, longest)


def reference(pipeline: Path, text: str, longest: int) -> list[int]:
    """What ZImagePipeline gives its text encoder, pads taken out by the mask as it does."""
    tokenizer: Any = AutoTokenizer.from_pretrained(pipeline / "tokenizer")
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
    found = tokenizer([rendered], padding="max_length", max_length=longest, truncation=True, return_tensors="pt")
    ids: list[int] = found.input_ids[0][found.attention_mask[0].bool()].tolist()
    return ids


@pytest.mark.parametrize("longest", [512, 40, 1])
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_ids_are_the_pipelines(tiny: Path, text: str, longest: int) -> None:
    for pipeline in (tiny, DEMO_PIPELINE):
        assert reader(pipeline, longest).tokenize(text).ids.tolist() == reference(pipeline, text, longest)


def test_a_prompt_that_fits_is_not_cut() -> None:
    assert reader(DEMO_PIPELINE).tokenize("a cat").truncation_notice == ""


def test_what_is_cut_of_a_long_prompt_is_said(tiny: Path) -> None:
    """Every letter is a token there."""
    head = len(reader(tiny, 10_000).tokenize("").ids)
    found = reader(tiny, 60).tokenize("a" * 100 + "b")
    assert len(found.ids) == 60
    assert f"has {head + 101} tokens, of which 60 are read" in found.truncation_notice
    assert "all from 'aaaa" in found.truncation_notice
    assert "…" not in found.truncation_notice


def test_a_long_cut_is_shortened(tiny: Path) -> None:
    assert reader(tiny, 60).tokenize("a" * 1000).truncation_notice.endswith("aaa'… on.")


def test_a_cut_through_the_templates_end_says_so(tiny: Path) -> None:
    whole = len(reader(tiny).tokenize("a cat").ids)
    found = reader(tiny, whole - 1).tokenize("a cat")
    assert found.truncation_notice.endswith("is nothing but the end of the chat template.")


def test_a_template_may_refuse(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "tokenizer", tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "chat_template.jinja").write_text("{{ raise_exception('not today') }}")
    with pytest.raises(UserError, match="refuses the prompt: not today"):
        reader(tmp_path).tokenize("a")


def test_a_template_knows_the_special_tokens_and_plain_json(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "tokenizer", tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "chat_template.jinja").write_text("{{ eos_token }}{{ {'a': '<字>'} | tojson }}")
    assert reader(tmp_path).tokenize("").ids.tolist() == reference(tmp_path, "", 512)


def test_bytes_that_are_no_text_are_refused(tiny: Path) -> None:
    with pytest.raises(UserError, match="not valid UTF-8"):
        reader(tiny).tokenize("a\udcff")


def test_a_damaged_template_is_named(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "tokenizer", tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "chat_template.jinja").write_text("{% for message in messages %}")
    with pytest.raises(UserError, match=r"chat_template\.jinja is no chat template \(.*endfor.*\); export .* again"):
        reader(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tiny: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(tiny / "tokenizer", tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / name).unlink()
    with pytest.raises(UserError, match=rf"{name} cannot be read"):
        reader(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_file_is_named(tiny: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(tiny / "tokenizer", tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / name).write_text(json.dumps({})[:1])
    with pytest.raises(UserError, match=name):
        reader(tmp_path)
