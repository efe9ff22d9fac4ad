"""Token ids held against the pipeline's own tokenizer, padding and mask."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from edgepress.errors import UserError
from edgepress.runtime.prompt import Reader
from edgepress.sources import DEMO

TEXTS = [
    "", " ", "a cat", 'a striped white wall, large red letters, top: "OPEN"', "平整白墙上方橙色大字：“青春 安家”",
    "two\nlines\r\nand\ttabs  and   spaces ", "cafe\u0301 \U0001f600 <|im_end|> {{ messages }} {% raw %}",
    "x" * 300, "字" * 90,
]  # fmt: skip
FILES = ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json")


def reader(pipeline: Path, longest: int = 512) -> Reader:
    return Reader(pipeline / "tokenizer", {"enable_thinking": True}, longest)


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
    for pipeline in (tiny, DEMO):
        assert reader(pipeline, longest).read(text).ids.tolist() == reference(pipeline, text, longest)


def test_a_prompt_that_fits_is_not_cut() -> None:
    assert reader(DEMO).read("a cat").cut == ""


def test_what_is_cut_of_a_long_prompt_is_said(tiny: Path) -> None:
    """Every letter is a token there."""
    head = len(reader(tiny, 10_000).read("").ids)
    found = reader(tiny, 60).read("a" * 100 + "b")
    assert len(found.ids) == 60
    assert f"has {head + 101} tokens, of which 60 are read" in found.cut
    assert "all from 'aaaa" in found.cut
    assert "…" not in found.cut


def test_a_long_cut_is_shortened(tiny: Path) -> None:
    assert reader(tiny, 60).read("a" * 1000).cut.endswith("aaa'… on.")


def test_a_cut_through_the_templates_end_says_so(tiny: Path) -> None:
    whole = len(reader(tiny).read("a cat").ids)
    found = reader(tiny, whole - 1).read("a cat")
    assert found.cut.endswith("is nothing but the end of the chat template.")


def test_a_template_may_refuse(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "tokenizer", tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "chat_template.jinja").write_text("{{ raise_exception('not today') }}")
    with pytest.raises(UserError, match="refuses the prompt: not today"):
        reader(tmp_path).read("a")


def test_a_template_knows_the_special_tokens_and_plain_json(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "tokenizer", tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / "chat_template.jinja").write_text("{{ eos_token }}{{ {'a': '<字>'} | tojson }}")
    assert reader(tmp_path).read("").ids.tolist() == reference(tmp_path, "", 512)


def test_bytes_that_are_no_text_are_refused(tiny: Path) -> None:
    with pytest.raises(UserError, match="not valid UTF-8"):
        reader(tiny).read("a\udcff")


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
