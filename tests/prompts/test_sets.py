"""Prompt sets: shipped ones by name, and files in the formats of published benchmarks."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.prompts import sets
from edgepress.prompts.prompt import Prompt, save_prompts


def test_a_shipped_set_has_a_name() -> None:
    assert {"calibration", "evaluation", "smoke", "text-en"} <= set(sets.prompt_set_names())
    assert sets.load_prompt_set("smoke") == sets.load_prompt_set(sets.PROMPTS_DIR / "smoke.jsonl")


def test_a_file_in_the_package_format_is_read(tmp_path: Path) -> None:
    prompts = [Prompt(id="tag", prompt="a cat", language="en", lines=("CAT",))]
    save_prompts(prompts, tmp_path / "mine.jsonl")
    assert sets.load_prompt_set(tmp_path / "mine.jsonl") == prompts


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("text-e", "did you mean 'text-en'"),
        ("zzzzzz", "shipped sets: calibration, "),
        ("no/such.tsv", r"no prompt set or file 'no/such\.tsv'"),
    ],
)
def test_an_unknown_set_is_answered_with_known_ones(name: str, match: str) -> None:
    with pytest.raises(UserError, match=match):
        sets.load_prompt_set(name)


# ---------------------------------------------------------------- invalid files


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.tsv", "Words\tKind\nsign\tx\n", "There is no column 'prompt'; there are 'Words', 'Kind'"),
        ("a.tsv", "Prompt\tCategory\tChallenge\tNote\n\tArts\tBasic\t\n", r"\.tsv:2: Prompt must be a non-empty"),
        ("a.tsv", "Prompt\tCategory\tChallenge\tNote\n", "has no prompts"),
        ("a.tsv", "Prompt\tCategory\tChallenge\tNote\nsign\n", "Category must be a non-empty string"),
        ("a.csv", 'item_id,text\n1,"a', r"a\.csv cannot be read \(unexpected end of data, line 2"),
        ("a.csv", "item_id,text\n1,a\n1,b\n", r"a\.csv:3: The item_id '1' has another text before"),
        ("a.csv", "item_id,text\n1,\n", r"a\.csv:2: text must be a non-empty string"),
        ("a.json", "[]", "has no prompts"),
        ("a.json", "{", r"a\.json: Invalid JSON"),
        ("a.json", '{"prompts": ["a"], "data": ["b"]}', "has prompts under 'prompts' and 'data'"),
        ("a.json", '{"rows": [{"prompt": "a"}], "data_list": []}', "has prompts under 'data_list' and 'rows'"),
        ("a.json", '{"data_list": 5}', "There is no key 'prompt'; there are 'data_list'"),
        ("a.json", '{"data_list": [{"prompt": "a", "sentence_list": "A"}]}', "sentence_list must be a list of strings"),
        ("a.json", '{"data_list": [{"index": 1, "prompt": "a", "sentence_list": []}, {"index": 1, "prompt": "b", '
         '"sentence_list": []}]}', "Duplicate prompt id '.*a-1'"),
        ("a.jsonl", '{"tag": "x", "include": [], "prompt": 5}', r"a\.jsonl:1: prompt must be a non-empty string"),
        ("a.jsonl", '{"prompt_id": 1, "prompt": "a", "text": [1]}', "text must be a string or a list of strings"),
        ("a.jsonl", '{"tag": "x", "include": [], "prompt": "a"}\nno json', r"a\.jsonl:2: Invalid JSON"),
        ("a.jsonl", "", r"has no prompts\. Write one in it\."),
    ],
)  # fmt: skip
def test_invalid_files_are_reported_with_the_reason(name: str, content: str, match: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, "utf-8")
    with pytest.raises(UserError, match=match):
        sets.load_prompt_set(tmp_path / name)


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.json", "a.jsonl"])
def test_a_file_that_is_not_text_is_reported(name: str, tmp_path: Path) -> None:
    for content in (b"\xff\xff\x80", b"\xff\xfe\x00\xd8", "a\nb".encode("utf-16-le")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name} cannot be read .*must be a UTF-8 text file"):
            sets.load_prompt_set(tmp_path / name)


@pytest.mark.parametrize("number", [0, 5])
def test_a_set_that_is_smaller_than_requested_is_reported(number: int, caplog: pytest.LogCaptureFixture) -> None:
    prompts = sets.load_prompt_set("smoke")[:number]
    sets.warn_if_fewer(prompts, 5, "smoke", "--limit")
    expected = ["--limit asks for 5 prompts, but smoke has 0. All of them are used."] if number == 0 else []
    assert caplog.messages == expected


def test_a_set_without_a_name_is_not_the_current_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="prompt set for the calibration has no name"):
        sets.resolve_prompt_set(tmp_path, " ", "calibration")


def test_a_name_that_is_too_long_for_a_file_is_unknown() -> None:
    with pytest.raises(UserError, match="There is no prompt set or file 'xxx"):
        sets.load_prompt_set("x" * 5000)


def test_an_empty_file_of_a_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "3.txt").write_text(" \n")
    with pytest.raises(UserError, match=r"3\.txt is empty"):
        sets.load_prompt_set(tmp_path)


def test_an_empty_folder_has_no_prompts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no prompts\. Put \.txt files in it, or give a file that ends in \.jsonl"):
        sets.load_prompt_set(tmp_path)


# ---------------------------------------------------------------- sets of a pipeline


def test_auto_is_the_pipelines_set_or_else_the_shipped_one(tmp_path: Path) -> None:
    folder = tmp_path / "pipeline"
    assert sets.resolve_prompt_set(folder, "mine.jsonl", "evaluation") == Path("mine.jsonl")
    shipped = sets.resolve_prompt_set(folder, "auto", "evaluation")
    assert shipped.parts[-3:] == ("recipes", "prompts", "evaluation.jsonl")
    (folder / "prompts").mkdir(parents=True)
    (folder / "prompts" / "evaluation.jsonl").touch()
    assert sets.resolve_prompt_set(folder, "auto", "evaluation") == folder / "prompts" / "evaluation.jsonl"
    assert sets.resolve_prompt_set(folder, "auto", "calibration").parts[-3:] == (
        "recipes",
        "prompts",
        "calibration.jsonl",
    )
