"""The tokenizer's files for the runtime, against the tokenizer that the pipeline has in torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgepress.common.errors import UserError
from edgepress.export.graph import tokenizer_files
from edgepress.export.graph.tokenizer_files import resolve_tokenizer_files
from edgepress.models.base.prompt_tokens import PromptFormat
from edgepress.runtime.tokenizer import PromptTokenizer

PROMPT = 'a sign "AB" <special> \ufb01 x'
MAX_TOKENS = 512
TEMPLATE = "{{ messages[0]['content'] }}"
FILES = ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json")


@pytest.fixture
def pipeline(tiny: Path, tmp_path: Path) -> Path:
    """A pipeline of which only the index and the tokenizer are there."""
    shutil.copytree(tiny / "tokenizer", tmp_path / "source" / "tokenizer")
    shutil.copy(tiny / "model_index.json", tmp_path / "source")
    return tmp_path / "source"


def tokenize_in_torch(pipeline: Path) -> list[int]:
    """The ids that the diffusers pipeline computes."""
    from transformers import Qwen2Tokenizer

    tokenizer: Any = Qwen2Tokenizer.from_pretrained(pipeline / "tokenizer")
    messages = [{"role": "user", "content": PROMPT}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=True)
    return list(tokenizer(text, max_length=MAX_TOKENS, truncation=True).input_ids)


def tokenize_exported(pipeline: Path, folder: Path) -> list[int]:
    """The ids that the runtime computes."""
    folder.mkdir()
    for name, text in resolve_tokenizer_files(pipeline).items():
        (folder / name).write_text(text, "utf-8")
    chat_format = PromptFormat("tokenizer", MAX_TOKENS, chat_template_kwargs={"enable_thinking": True})
    ids: list[int] = PromptTokenizer(folder, chat_format).tokenize(PROMPT).ids.tolist()
    return ids


def update(file: Path, **keys: Any) -> None:
    """Sets keys of a JSON file; None removes one."""
    content = (json.loads(file.read_text("utf-8")) if file.exists() else {}) | keys
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}), "utf-8")


def set_template(folder: Path, template: str) -> None:
    (folder / "chat_template.jinja").write_text(template, "utf-8")


def add_token_in_own_file(folder: Path) -> None:
    update(folder / "added_tokens.json", **{"<special>": 259})


def add_token_in_config(folder: Path) -> None:
    update(folder / "tokenizer_config.json", extra_special_tokens=["<special>"])


def list_added_token(folder: Path) -> None:
    token = {"content": "<special>", "lstrip": True, "rstrip": False, "normalized": False, "single_word": False}
    update(folder / "tokenizer_config.json", added_tokens_decoder={"259": token | {"special": True}})


def rely_on_special_tokens_of_the_class(folder: Path) -> None:
    update(folder / "tokenizer_config.json", eos_token=None, pad_token=None)
    set_template(folder, "{{ eos_token }}{{ pad_token }}" + TEMPLATE)


def map_special_tokens(folder: Path) -> None:
    update(folder / "tokenizer_config.json", eos_token=None)
    update(folder / "special_tokens_map.json", eos_token="<special>")
    set_template(folder, "{{ eos_token }}" + TEMPLATE)


def set_a_normalizer_that_the_class_overrules(folder: Path) -> None:
    update(folder / "tokenizer.json", normalizer={"type": "NFKC"})


def prefix_words_with_a_space(folder: Path) -> None:
    update(folder / "tokenizer_config.json", add_prefix_space=True)


def list_templates(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    templates = [{"name": "default", "template": f"A{TEMPLATE}"}, {"name": "tools", "template": "B"}]
    update(folder / "tokenizer_config.json", chat_template=templates)


def truncate_left_in_tokenizer_json(folder: Path) -> None:
    truncation = {"direction": "Left", "max_length": 5, "strategy": "LongestFirst", "stride": 0}
    update(folder / "tokenizer.json", truncation=truncation)
    add_token_in_config(folder)
    set_template(folder, "{% for _ in range(99) %}word {{ loop.index }} {% endfor %}" + TEMPLATE)


def mark_what_is_generated(folder: Path) -> None:
    set_template(folder, "{% generation %}" + TEMPLATE + "{% endgeneration %}")


def write_indented_json(folder: Path) -> None:
    set_template(folder, "{{ messages | tojson(indent=2, sort_keys=true) }}")


def write_the_year(folder: Path) -> None:
    set_template(folder, "{{ strftime_now('%Y') }}" + TEMPLATE)


EDITS = [
    add_token_in_own_file,
    add_token_in_config,
    list_added_token,
    rely_on_special_tokens_of_the_class,
    map_special_tokens,
    set_a_normalizer_that_the_class_overrules,
    prefix_words_with_a_space,
    list_templates,
    truncate_left_in_tokenizer_json,
    mark_what_is_generated,
    write_indented_json,
    write_the_year,
]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_ids_are_those_of_the_pipeline(edit: Callable[[Path], None], pipeline: Path, tmp_path: Path) -> None:
    edit(pipeline / "tokenizer")
    assert tokenize_exported(pipeline, tmp_path / "exported") == tokenize_in_torch(pipeline)


def test_files_that_say_the_same_are_copied_as_they_are(pipeline: Path) -> None:
    assert resolve_tokenizer_files(pipeline) == {
        name: (pipeline / "tokenizer" / name).read_text("utf-8") for name in FILES
    }


def test_a_tokenizer_that_is_copied_is_not_loaded_again(
    pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = resolve_tokenizer_files(pipeline)
    monkeypatch.delattr(tokenizer_files, "load_tokenizer")
    assert resolve_tokenizer_files(pipeline) == files
    with pytest.raises(NameError):  # with other settings, it may be refused
        resolve_tokenizer_files(pipeline, is_padded=True)
    add_token_in_own_file(pipeline / "tokenizer")
    with pytest.raises(NameError):
        resolve_tokenizer_files(pipeline)


def test_what_is_written_out_is_resolved_again(pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    add_token_in_own_file(pipeline / "tokenizer")
    files = resolve_tokenizer_files(pipeline)
    assert files["tokenizer.json"] != (pipeline / "tokenizer" / "tokenizer.json").read_text("utf-8")
    assert resolve_tokenizer_files(pipeline) == files


def test_a_setting_that_the_runtime_lacks_is_refused(pipeline: Path) -> None:
    update(pipeline / "tokenizer" / "tokenizer_config.json", split_special_tokens=True)
    with pytest.raises(UserError, match=r"tokenizer_config\.json sets split_special_tokens.*Remove it there\."):
        resolve_tokenizer_files(pipeline)


def test_padding_on_the_left_is_refused_where_prompts_are_padded(pipeline: Path) -> None:
    update(pipeline / "tokenizer" / "tokenizer_config.json", padding_side="left")
    resolve_tokenizer_files(pipeline)
    with pytest.raises(UserError, match=r"has padding_side left.*Set it to right"):
        resolve_tokenizer_files(pipeline, is_padded=True)


def test_a_tokenizer_without_a_template_is_refused(pipeline: Path) -> None:
    (pipeline / "tokenizer" / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match=r"chat_template\.jinja is missing.*Save the pipeline again"):
        resolve_tokenizer_files(pipeline)


def test_a_tokenizer_that_cannot_be_loaded_is_refused(pipeline: Path) -> None:
    (pipeline / "tokenizer" / "tokenizer.json").write_text('{"version": "1.0"}', "utf-8")
    with pytest.raises(UserError, match=r"cannot be loaded as Qwen2Tokenizer \(.*\)\. Download the model again\."):
        resolve_tokenizer_files(pipeline)
