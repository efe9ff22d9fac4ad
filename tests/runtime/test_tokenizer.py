"""Token ids against the tokenizer of the pipeline, with its padding and mask."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer

from edgepress.common.errors import UserError
from edgepress.models.base.prompt_tokens import PromptFormat
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.pipelines.prompt_limits import find_truncations
from edgepress.runtime.tokenizer import PromptTokenizer

TEXTS = [
    "", " ", "a cat", 'a striped white wall, large red letters, top: "OPEN"', "平整白墙上方橙色大字：“青春 安家”",
    "two\nlines\r\nand\ttabs  and   spaces ", "cafe\u0301 \U0001f600 <|im_end|> {{ messages }} {% raw %}",
    "x" * 300, "字" * 90,
]  # fmt: skip
FILES = ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json")


def make_tokenizer(pipeline: Path, max_tokens: int = 512) -> PromptTokenizer:
    chat = {"enable_thinking": True}
    return PromptTokenizer(pipeline / "tokenizer", PromptFormat("tokenizer", max_tokens, chat_template_kwargs=chat))


def tokenize_with_transformers(pipeline: Path, text: str, max_tokens: int) -> list[int]:
    """Tokenizes as ZImagePipeline does, and removes pads by the mask as it does."""
    tokenizer: Any = AutoTokenizer.from_pretrained(pipeline / "tokenizer")
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True, enable_thinking=True
    )
    batch = tokenizer([rendered], padding="max_length", max_length=max_tokens, truncation=True, return_tensors="pt")
    ids: list[int] = batch.input_ids[0][batch.attention_mask[0].bool()].tolist()
    return ids


@pytest.mark.parametrize("max_tokens", [512, 40, 1])
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_ids_equal_transformers(tiny: Path, text: str, max_tokens: int) -> None:
    for pipeline in (tiny, DEMO_PIPELINE):
        ids = make_tokenizer(pipeline, max_tokens).tokenize(text).ids.tolist()
        assert ids == tokenize_with_transformers(pipeline, text, max_tokens)


def test_short_prompt_is_not_truncated() -> None:
    assert make_tokenizer(DEMO_PIPELINE).tokenize("a cat").truncation_notice == ""


def test_notice_names_the_dropped_text(tiny: Path) -> None:
    """Every letter is a token of the tiny pipeline."""
    template_tokens = len(make_tokenizer(tiny, 10_000).tokenize("").ids)
    prompt = make_tokenizer(tiny, 60).tokenize("a" * 100 + "b")
    assert len(prompt.ids) == 60
    expected = f'Prompt "{"a" * 60}…" has {template_tokens + 101} tokens; the model reads the first 60. '
    assert re.fullmatch(re.escape(expected) + r'It ignores the text from "a+b" on\.', prompt.truncation_notice)


def test_notice_shortens_long_text(tiny: Path) -> None:
    assert make_tokenizer(tiny, 60).tokenize("a" * 1000).truncation_notice.endswith('aaa…" on.')


def test_notice_of_a_truncated_template(tiny: Path) -> None:
    length = len(make_tokenizer(tiny).tokenize("a cat").ids)
    prompt = make_tokenizer(tiny, length - 1).tokenize("a cat")
    assert prompt.truncation_notice.endswith("It ignores only the end of the chat template.")


BOS_AND_EOS = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}},
    ],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {
        token: {"id": token, "ids": [number], "tokens": [token]}
        for number, token in enumerate(("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    },
}
TRUNCATION = {"direction": "Left", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # of tokenizer_config.json, and of tokenizer.json
    "left": ({"truncation_side": "left"}, {}),
    "left in tokenizer.json": ({}, {"truncation": TRUNCATION}),
    "right in spite of tokenizer.json": ({"truncation_side": "right"}, {"truncation": TRUNCATION}),
    "first and last": ({}, {"post_processor": BOS_AND_EOS}),
    "first and last, left": ({"truncation_side": "left"}, {"post_processor": BOS_AND_EOS}),
    "ignored settings": ({"add_eos_token": True, "add_bos_token": False}, {"post_processor": BOS_AND_EOS}),
    "ignored last": ({"add_eos_token": True}, {}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_long_prompts_are_truncated_as_transformers_does(tiny: Path, tmp_path: Path, name: str) -> None:
    """And both say the same of it."""
    folder = copy_tokenizer(tiny, tmp_path)
    for file, settings in zip(("tokenizer_config.json", "tokenizer.json"), SETTINGS[name], strict=True):
        content = json.loads((folder / file).read_text("utf-8")) | settings
        (folder / file).write_text(json.dumps(content), "utf-8")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    length = len(make_tokenizer(tmp_path, 10_000).tokenize("").ids)
    for text in ("a", "abc " * 9):
        for max_tokens in (512, length + 5, length, 5):
            prompt = make_tokenizer(tmp_path, max_tokens).tokenize(text)
            assert prompt.ids.tolist() == tokenize_with_transformers(tmp_path, text, max_tokens)
            chat_format = PromptFormat("tokenizer", max_tokens, chat_template_kwargs={"enable_thinking": True})
            host: Any = SimpleNamespace(prompt_formats=[chat_format])
            assert find_truncations(SimpleNamespace(tokenizer=tokenizer), host, [text]) == [prompt.truncation_notice]


def test_notice_names_the_text_that_is_dropped_on_the_left(tiny: Path, tmp_path: Path) -> None:
    folder = copy_tokenizer(tiny, tmp_path)
    content = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps(content | {"truncation_side": "left"}), "utf-8")
    length = len(make_tokenizer(tmp_path, 10_000).tokenize("").ids)
    after = len("<|im_end|>\n<|im_start|>assistant\n") - len("<|im_end|><|im_start|>") + 2  # tokens after the prompt
    notice = make_tokenizer(tmp_path, after + 3).tokenize("abcdefgh").truncation_notice
    assert f"has {length + 8} tokens; the model reads the last {after + 3}." in notice
    assert notice.endswith('It ignores the text up to "abcde".')


@pytest.mark.parametrize("key", ["truncation_side", "padding_side"])
def test_another_side_is_refused(key: str, tiny: Path, tmp_path: Path) -> None:
    (copy_tokenizer(tiny, tmp_path) / "tokenizer_config.json").write_text(json.dumps({key: "middle"}))
    with pytest.raises(UserError, match=rf"tokenizer_config\.json is corrupt \({key} is \"middle\"\)\. Export"):
        make_tokenizer(tmp_path)


PADDING = {"direction": "Left", "pad_id": 0, "pad_token": "<|endoftext|>", "pad_type_id": 0, "strategy": "BatchLongest"}
PADDING_SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "unsaid": ({}, {}),
    "left": ({"padding_side": "left"}, {}),
    "left in tokenizer.json": ({"padding_side": None}, {"padding": PADDING}),
    "right in spite of tokenizer.json": ({"padding_side": "right"}, {"padding": PADDING}),
}


@pytest.mark.parametrize("name", PADDING_SETTINGS)
def test_prompts_are_padded_as_transformers_does_or_not_at_all(name: str, tiny: Path, tmp_path: Path) -> None:
    folder = copy_tokenizer(tiny, tmp_path)
    for file, settings in zip(("tokenizer_config.json", "tokenizer.json"), PADDING_SETTINGS[name], strict=True):
        content = json.loads((folder / file).read_text("utf-8")) | settings
        cleared = {key: value for key, value in content.items() if value is not None or key != "padding_side"}
        (folder / file).write_text(json.dumps(cleared), "utf-8")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    padded = PromptFormat("tokenizer", 9, is_padded=True)
    if tokenizer.padding_side == "left":
        with pytest.raises(UserError, match=r"pads prompts on the left, .* Set padding_side to right"):
            PromptTokenizer(folder, padded)
        PromptTokenizer(folder, PromptFormat("tokenizer", 9))  # pads nothing, so the side does not matter
        return
    expected = tokenizer(["abc"], padding="max_length", max_length=9, truncation=True).input_ids[0]
    assert PromptTokenizer(folder, padded).tokenize("abc").ids.tolist() == expected


def test_special_tokens_may_be_stored_with_settings(tiny: Path, tmp_path: Path) -> None:
    folder = copy_tokenizer(tiny, tmp_path)
    content = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    eos = {"__type": "AddedToken", "content": content["eos_token"], "special": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(content | {"eos_token": eos}), "utf-8")
    (folder / "chat_template.jinja").write_text("{{ eos_token }}")
    assert make_tokenizer(tmp_path).tokenize("").ids.tolist() == tokenize_with_transformers(tmp_path, "", 512)


def copy_tokenizer(pipeline: Path, folder: Path) -> Path:
    shutil.copytree(pipeline / "tokenizer", folder / "tokenizer")
    return folder / "tokenizer"


def test_template_can_reject_a_prompt(tiny: Path, tmp_path: Path) -> None:
    folder = copy_tokenizer(tiny, tmp_path)
    (folder / "chat_template.jinja").write_text("{{ raise_exception('not today') }}")
    with pytest.raises(UserError, match="rejects the prompt: not today"):
        make_tokenizer(tmp_path).tokenize("a")


def test_template_has_special_tokens_and_plain_json(tiny: Path, tmp_path: Path) -> None:
    folder = copy_tokenizer(tiny, tmp_path)
    (folder / "chat_template.jinja").write_text("{{ eos_token }}{{ {'a': '<字>'} | tojson }}")
    assert make_tokenizer(tmp_path).tokenize("").ids.tolist() == tokenize_with_transformers(tmp_path, "", 512)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}a{% generation %}{{ m['content'] }}{% endgeneration %}b{% endfor %}",
        "{{ strftime_now('%Y') }}",
        "{{ messages | tojson(indent=2, sort_keys=True, separators=(',', ':')) }}",
    ],
)
def test_what_transformers_adds_to_templates_is_known(template: str, tiny: Path, tmp_path: Path) -> None:
    (copy_tokenizer(tiny, tmp_path) / "chat_template.jinja").write_text(template)
    assert make_tokenizer(tmp_path).tokenize("字").ids.tolist() == tokenize_with_transformers(tmp_path, "字", 512)


def test_invalid_unicode(tiny: Path) -> None:
    with pytest.raises(UserError, match="not valid UTF-8"):
        make_tokenizer(tiny).tokenize("a\udcff")


def test_invalid_template(tiny: Path, tmp_path: Path) -> None:
    folder = copy_tokenizer(tiny, tmp_path)
    (folder / "chat_template.jinja").write_text("{% for message in messages %}")
    with pytest.raises(UserError, match=r"chat_template\.jinja is not a chat template \(.*endfor.*\)\. Export"):
        make_tokenizer(tmp_path)


@pytest.mark.parametrize("name", FILES)
def test_missing_file(tiny: Path, tmp_path: Path, name: str) -> None:
    (copy_tokenizer(tiny, tmp_path) / name).unlink()
    with pytest.raises(UserError, match=rf"Cannot read .*{name}"):
        make_tokenizer(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_corrupt_file(tiny: Path, tmp_path: Path, name: str, text: str) -> None:
    (copy_tokenizer(tiny, tmp_path) / name).write_text(text)
    with pytest.raises(UserError, match=name):
        make_tokenizer(tmp_path)


@pytest.mark.parametrize("code", ["{{ 1 / 0 }}", "{{ 'a' + 1 }}", "{{ messages[9].content.x }}", "{{ none() }}"])
def test_a_template_whose_code_fails_rejects_the_prompt(tiny: Path, tmp_path: Path, code: str) -> None:
    folder = copy_tokenizer(tiny, tmp_path)
    (folder / "chat_template.jinja").write_text(code)
    with pytest.raises(UserError, match=r"chat template rejects the prompt: .*\. Export"):
        make_tokenizer(tmp_path).tokenize("a")
