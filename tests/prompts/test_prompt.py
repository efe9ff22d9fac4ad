"""Files of prompts: what was saved is loaded again, and an invalid line is reported with its number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgepress.common.errors import UserError
from edgepress.prompts.prompt import Prompt, load_prompts, prompt_set_digest, save_prompts

GOOD = '{"id": "1", "prompt": "A sign", "language": "en"}'
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)  # lone surrogates cannot be stored as UTF-8


def write_lines(folder: Path, *lines: str) -> Path:
    path = folder / "set.jsonl"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def test_english_and_chinese_prompts_survive_saving(tmp_path: Path) -> None:
    prompts = [
        Prompt(id="en-1", prompt="A sign that says “OPEN”", language="en", lines=("OPEN",), categories={"lines": "1"}),
        Prompt(id="zh-1", prompt="一块写着“欢迎光临”的牌子", language="zh", lines=("欢迎", "光临")),
        Prompt(id="none", prompt="", language="en"),
    ]
    save_prompts(prompts, tmp_path / "set.jsonl")
    assert load_prompts(tmp_path / "set.jsonl") == prompts
    saved = (tmp_path / "set.jsonl").read_text("utf-8").splitlines()
    assert "欢迎光临" in saved[1]
    assert [json.loads(line)["id"] for line in saved] == ["en-1", "zh-1", "none"]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.builds(
            Prompt,
            id=text,
            prompt=text,
            language=st.sampled_from(["en", "zh"]),
            lines=st.lists(text, max_size=2).map(tuple),
            categories=st.dictionaries(text, text, max_size=2),
        ),
        min_size=1,
        max_size=4,
        unique_by=lambda prompt: prompt.id,
    )
)
def test_any_prompts_survive_saving(tmp_path_factory: pytest.TempPathFactory, prompts: list[Prompt]) -> None:
    path = tmp_path_factory.mktemp("prompts") / "set.jsonl"
    save_prompts(prompts, path)
    assert load_prompts(path) == prompts


def test_separators_that_only_unicode_knows_do_not_end_a_line(tmp_path: Path) -> None:
    prompts = [Prompt(id="odd", prompt="first\u2028second\x85third\nfourth", language="en")]
    save_prompts(prompts, tmp_path / "set.jsonl")
    assert load_prompts(tmp_path / "set.jsonl") == prompts


def test_blank_lines_are_skipped_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    second = GOOD.replace('"1"', '"2"')
    path.write_bytes(f"\r\n{GOOD}\r\n   \r\n{second}".encode())
    assert [prompt.id for prompt in load_prompts(path)] == ["1", "2"]


def test_a_duplicate_id_is_reported_with_its_line(tmp_path: Path) -> None:
    path = write_lines(tmp_path, GOOD, "", GOOD)
    with pytest.raises(UserError, match=r"set\.jsonl:3: Duplicate prompt id '1'"):
        load_prompts(path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("not json", "JSON"),
        ('{"id": "x", "prompt": "y"', "JSON"),
        ("[]", "object"),
        ('{"id": "x", "language": "en"}', "prompt"),
        ('{"id": "x", "prompt": "y", "language": "de"}', "language"),
        ('{"id": 3, "prompt": "y", "language": "en"}', "id"),
        ('{"id": "x", "prompt": "y", "language": "en", "promt": ""}', "promt"),
        ('{"id": "x", "prompt": "y", "language": "en", "lines": "SALE"}', "lines"),
    ],
)
def test_an_invalid_line_is_reported_with_its_number_and_the_reason(tmp_path: Path, line: str, reason: str) -> None:
    path = write_lines(tmp_path, GOOD, line)
    with pytest.raises(UserError, match=rf"set\.jsonl:2: .*{reason}") as raised:
        load_prompts(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("lines", [(), ("", "  ")])
def test_a_file_without_prompts_is_rejected(tmp_path: Path, lines: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"set\.jsonl has no prompts"):
        load_prompts(write_lines(tmp_path, *lines))


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent\.jsonl cannot be read"):
        load_prompts(tmp_path / "absent.jsonl")


def test_a_file_that_is_not_text_is_reported(tmp_path: Path) -> None:
    (tmp_path / "set.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"set\.jsonl cannot be read"):
        load_prompts(tmp_path / "set.jsonl")


def test_a_prompt_is_immutable() -> None:
    prompt = Prompt(id="1", prompt="A sign", language="en")
    with pytest.raises(ValidationError, match="frozen"):
        prompt.prompt = "another"


def test_a_digest_does_not_depend_on_formatting(tmp_path: Path) -> None:
    first, second = Prompt(id="1", prompt="A sign", language="en"), Prompt(id="2", prompt="牌子", language="zh")
    formatted = '{"language": "zh",  "prompt": "\\u724c\\u5b50", "id": "2", "lines": []}'
    loaded = load_prompts(write_lines(tmp_path, GOOD, "", formatted))
    assert prompt_set_digest(loaded) == prompt_set_digest([first, second])


def test_a_digest_depends_on_the_order_and_on_every_field() -> None:
    first, second = Prompt(id="1", prompt="A sign", language="en"), Prompt(id="2", prompt="B", language="en")
    changes: list[dict[str, object]] = [
        {"id": "3"}, {"prompt": "a sign"}, {"language": "zh"}, {"lines": ("A",)}, {"categories": {"size": "small"}},
    ]  # fmt: skip
    sets = [
        [first, second],
        [second, first],
        [first],
        *([first.model_copy(update=change), second] for change in changes),
    ]
    assert len({prompt_set_digest(prompts) for prompts in sets}) == len(sets)
