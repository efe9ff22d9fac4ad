"""Files of prompts: what was saved is loaded again, and an invalid line is reported with its number."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edgepress.common.errors import UserError
from edgepress.prompts.prompt import Prompt, prompt_set_digest, require_guidance, save_prompts
from edgepress.prompts.reader import load_prompts

GOOD = '{"id": "1", "prompt": "A sign", "language": "en"}'
# Neither lone surrogates nor NUL can be stored.
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
ids = st.from_regex(r"[\w][\w. -]{0,10}[\w]", fullmatch=True)


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


def test_a_guidance_scale_is_a_number_and_counts_in_the_digest(tmp_path: Path) -> None:
    line = '{"id": "1", "prompt": "A sign", "language": "en", "guidance": %s}'
    prompts = [load_prompts(write_lines(tmp_path, text))[0] for text in (GOOD, line % "4.5", line % "0")]
    assert [prompt.guidance for prompt in prompts] == [None, 4.5, 0.0]
    assert [prompt.choose_guidance(2.0) for prompt in prompts] == [2.0, 4.5, 0.0]
    assert len({prompt_set_digest([prompt]) for prompt in prompts}) == 3
    for value in ("true", '"4"', "-1", "1001"):
        with pytest.raises(UserError, match="guidance"):
            load_prompts(write_lines(tmp_path, line % value))


def test_a_guidance_scale_is_refused_where_there_is_no_guidance() -> None:
    prompt = Prompt(id="one", prompt="A sign", language="en")
    require_guidance([prompt, prompt.model_copy(update={"guidance": 0.0})], False, "SomePipeline")
    guided = [prompt, prompt.model_copy(update={"id": "two", "guidance": 4.0})]
    require_guidance(guided, True, "SomePipeline")
    with pytest.raises(UserError, match="'two' has a guidance scale, but this SomePipeline has no guidance"):
        require_guidance(guided, False, "SomePipeline")


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.builds(
            Prompt,
            id=ids,
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
    for end in ("\r\n", "\r", "\n"):
        path.write_bytes(f"{end}{GOOD}{end}   {end}{second}".encode())
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
        ('{"id": "x", "language": "en"}', "the prompt is missing"),
        ('{"id": "x", "prompt": "y", "language": "de"}', 'language is "de". Write one of en, zh, mixed'),
        ('{"id": 1.5, "prompt": "y", "language": "en"}', "id is 1.5"),
        ('{"id": NaN, "prompt": "y", "language": "en"}', "id is NaN"),
        ('{"id": true, "prompt": "y", "language": "en"}', "id is true"),
        ('{"id": null, "prompt": "y", "language": "en"}', "id is null"),
        ('{"id": "x", "prompt": "y", "language": "en", "promt": ""}', "Unknown key 'promt'; did you mean 'prompt'"),
        ('{"id": "x", "prompt": "y", "language": "en", "seed": 3}', "Unknown key 'seed'; known: id, prompt, language"),
        ('{"id": "x", "prompt": "y", "language": "en", "lines": "SALE"}', 'lines is "SALE". Write a list of texts'),
        ('{"id": "x", "prompt": "y", "language": "en", "lines": [1]}', r"lines is \[1\]"),
        ('{"id": "x", "prompt": "y", "language": "en", "categories": {"size": 2}}', "categories is .* Write names"),
        ('{"id": "x", "prompt": 5, "language": "en"}', "prompt is 5, which is no text"),
        ('{"id": "x", "prompt": "\\u0000", "language": "en"}', "prompt contains NUL"),
        ('{"id": "x", "prompt": "\\ud83d", "language": "en"}', "prompt contains NUL or half of a surrogate pair"),
        ('{"id": "x", "id": "y", "prompt": "y", "language": "en"}', "The key 'id' is given twice"),
        ("[" * 50_000, "nested too deeply"),
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
    (tmp_path / "set.jsonl").write_bytes(b"\xff\xff\x00")
    with pytest.raises(UserError, match=r"set\.jsonl cannot be read"):
        load_prompts(tmp_path / "set.jsonl")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "The id is empty"),
        ("  ", "The id is empty"),
        ("../up", '"../up" is a path'),
        ("/root", "is a path"),
        ("a\\\\b", "is a path"),
        ("..", "is a path"),
        (".hidden", "is a path"),
        ("a\\nb", "contains a control character"),
        (" a", "begins or ends with a space"),
        ("长" * 67, "is longer than 200 bytes"),
    ],
)
def test_an_id_that_cannot_name_an_image_file_is_refused(tmp_path: Path, name: str, problem: str) -> None:
    line = f'{{"id": "{name}", "prompt": "y", "language": "en"}}'
    with pytest.raises(UserError, match=re.escape(problem)) as raised:
        load_prompts(write_lines(tmp_path, GOOD, line))
    assert "set.jsonl:2: The id" in str(raised.value)


def test_whole_numbers_are_ids_and_what_is_missing_is_made(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path, '{"id": 7, "prompt": "A", "language": "mixed"}', '{"prompt": " 牌子 ", "lines": ["A"]}'
    )
    digest = hashlib.sha256(" 牌子 ".encode()).hexdigest()[:12]
    assert load_prompts(path) == [
        Prompt(id="7", prompt="A", language="mixed"),
        Prompt(id=digest, prompt=" 牌子 ", language="zh", lines=("A",)),
    ]


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


def test_layout_of_text_is_optional_and_does_not_change_the_digest_of_older_sets(tmp_path: Path) -> None:
    """The digest was computed by edgepress 0.1.0, which had no layout."""
    plain = Prompt(id="1", prompt="A sign", language="en", lines=("OPEN",))
    assert prompt_set_digest([plain]) == "dbd3cdbd5f8362a69848da6e48fe7dc975b24310b19665b6faa153a2e1dab7ca"
    placed = Prompt(id="2", prompt="A sign", language="en", angle=90, region=(0, 0, 1, 0.5), text_height=(0.1, 0.2))
    assert prompt_set_digest([placed]) != prompt_set_digest([placed.model_copy(update={"angle": 180})])
    save_prompts([plain, placed], tmp_path / "set.jsonl")
    assert load_prompts(tmp_path / "set.jsonl") == [plain, placed]
    assert "angle" not in (tmp_path / "set.jsonl").read_text("utf-8").splitlines()[0]


@pytest.mark.parametrize(
    "layout",
    [
        {"angle": 45},
        {"region": [0, 0, 1]},
        {"region": [0.5, 0, 0.5, 1]},
        {"region": [0, 0, 1, 1.5]},
        {"text_height": [0.2, 0.1]},
        {"text_height": [-1, 0.1]},
        {"text_height": [False, True]},
        {"text_height": ["0.1", "0.2"]},
        {"region": [0, 0, True, 1]},
        {"angle": False},
    ],
)
def test_impossible_layouts_are_refused(layout: dict[str, object], tmp_path: Path) -> None:
    path = write_lines(tmp_path, json.dumps({"id": "1", "prompt": "x", "language": "en", **layout}))
    with pytest.raises(UserError, match=rf"set\.jsonl:1: {next(iter(layout))}"):
        load_prompts(path)
