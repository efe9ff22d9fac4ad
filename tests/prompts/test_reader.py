"""Files of prompts as people have them: tables, lists, plain lines, other keys, encodings, and what is logged."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.common.errors import UserError
from edgepress.prompts.prompt import Prompt
from edgepress.prompts.reader import load_prompts

CAT, SIGN = 'a cat, "KING" of cats', "一块写着“开门”的牌子"


def made_id(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


EXPECTED = [
    Prompt(id=made_id(CAT), prompt=CAT, language="en"),
    Prompt(id=made_id(SIGN), prompt=SIGN, language="zh"),
]


def write(folder: Path, name: str, text: str, encoding: str = "utf-8") -> Path:
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


def table(*rows: list[str], delimiter: str = ",") -> str:
    """As the csv module of Python writes it, and Excel."""
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter).writerows(rows)
    return stream.getvalue()


# ---------------------------------------------------------------- formats


@pytest.mark.parametrize(
    ("name", "text", "source"),
    [
        ("set.txt", f"{CAT}\n\n  {SIGN}  \n", "one per line"),
        ("SET.TXT", f"{CAT}\r\n\r\n{SIGN}", "one per line"),
        ("set.json", json.dumps([CAT, SIGN]), "one per text"),
        ("set.json", json.dumps({"prompts": [CAT, SIGN]}, indent=2), "one per text"),
        ("set.json", json.dumps([{"caption": CAT}, {"caption": SIGN}], indent=1), "key 'caption'"),
        ("set.jsonl", f"{json.dumps({'text': CAT})}\n{json.dumps({'text': SIGN})}", "key 'text'"),
        ("set.jsonl", json.dumps([CAT, SIGN]), "one per text"),
        ("set.jsonl", f"{json.dumps(CAT)}\n{json.dumps(SIGN)}", "one per text"),
        ("set.JSON", f"{json.dumps({'Prompt': CAT})}\n{json.dumps({'Prompt': SIGN})}", "key 'Prompt'"),
        ("set.ndjson", f"{json.dumps({'prompt_en': CAT})}\n{json.dumps({'prompt_en': SIGN})}", "key 'prompt_en'"),
        ("set.csv", table(["prompt"], [CAT], [], [SIGN]), "column 'prompt'"),
        ("Set.Csv", table(["Caption"], [CAT], [SIGN], delimiter=";"), "column 'Caption'"),
        ("set.tsv", f"text\n{CAT}\n{SIGN}\n", "column 'text'"),
        ("set.tsv", table(["TEXT"], [CAT], [SIGN], delimiter="\t"), "column 'TEXT'"),
    ],
)
def test_a_file_without_ids_and_languages_is_read(
    name: str, text: str, source: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path, name, text)
    assert load_prompts(path) == EXPECTED
    assert caplog.messages == [
        f"{path}: 2 prompts, {source}; ids made from the texts of 2; languages guessed from the script (1 en, 1 zh)."
    ]


def test_ids_languages_and_lines_of_a_table_are_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        ["url", "id", "text", "language", "lines"],
        ["x", "1", CAT, "", ""],
        ["y", "s", SIGN, "mixed", "开门\nOPEN"],
    ]
    path = write(tmp_path, "set.csv", table(*rows))
    assert load_prompts(path) == [
        Prompt(id="1", prompt=CAT, language="en"),
        Prompt(id="s", prompt=SIGN, language="mixed", lines=("开门", "OPEN")),
    ]
    assert caplog.messages == [f"{path}: 2 prompts, column 'text'; not used: url."]


def test_edgepress_own_format_is_not_worth_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_prompts(write(tmp_path, "set.jsonl", '{"id": "1", "prompt": "A sign", "language": "en"}'))
    assert [record.levelname for record in caplog.records if record.levelname != "INFO"] == []


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_and_line_ends_make_no_difference(encoding: str, end: str, tmp_path: Path) -> None:
    """With a byte order mark, Python's utf-16 and utf-32 write one."""
    assert load_prompts(write(tmp_path, "set.txt", f"{CAT}{end}{SIGN}{end}", encoding)) == EXPECTED
    rows = table(["prompt"], [CAT], [SIGN]).replace("\r\n", end)
    assert load_prompts(write(tmp_path, "set.csv", rows, encoding)) == EXPECTED
    lines = f"{json.dumps({'prompt': CAT})}{end}{json.dumps({'prompt': SIGN}, ensure_ascii=False)}"
    assert load_prompts(write(tmp_path, "set.jsonl", lines, encoding)) == EXPECTED


def test_a_byte_order_mark_is_no_part_of_a_folders_prompt(tmp_path: Path) -> None:
    write(tmp_path, "1.TXT", f"{CAT}\r\nand more\r\n", "utf-8-sig")
    assert load_prompts(tmp_path) == [Prompt(id="dpg-1", prompt=f"{CAT}\nand more", language="en")]


def test_a_byte_order_mark_is_no_part_of_a_file_that_was_appended(tmp_path: Path) -> None:
    path = write(tmp_path, "set.txt", "\ufeffa fox\r\n\ufeffa dog\n")
    assert [prompt.prompt for prompt in load_prompts(path)] == ["a fox", "a dog"]


def test_a_table_may_have_images_in_its_cells(tmp_path: Path) -> None:
    path = write(tmp_path, "set.csv", f"prompt,image\na fox,{'A' * 200_000}\n")
    assert [prompt.prompt for prompt in load_prompts(path)] == ["a fox"]


def test_repeated_texts_keep_their_places_with_numbered_ids(tmp_path: Path) -> None:
    ids = [prompt.id for prompt in load_prompts(write(tmp_path, "set.txt", f"{CAT}\n{SIGN}\n{CAT}\n"))]
    assert ids == [made_id(CAT), made_id(SIGN), f"{made_id(CAT)}-2"]


def test_quotes_in_tabs_are_removed_only_where_they_quote(tmp_path: Path) -> None:
    cells = ['"a ""B"""', '"A" and "B"', '"', "no", '""']
    texts = [prompt.prompt for prompt in load_prompts(write(tmp_path, "set.tsv", "\n".join(["text", *cells[:4]])))]
    assert texts == ['a "B"', '"A" and "B"', '"', "no"]


@pytest.mark.parametrize("name", ["set.tsv", "set.csv"])
def test_line_breaks_in_quoted_cells_between_tabs_are_kept(name: str, tmp_path: Path) -> None:
    rows = [["id", "text"], ["a", f'{CAT}\nand a "dog"'], ["b", SIGN], ["c", '"quoted"']]
    prompts = load_prompts(write(tmp_path, name, table(*rows, delimiter="\t")))
    assert [[prompt.id, prompt.prompt] for prompt in prompts] == rows[1:]


def test_a_quoted_cell_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "set.tsv", f'id\ttext\na\t{CAT}\nb\t"{SIGN}\nand "more"\n')
    with pytest.raises(UserError, match=r"set\.tsv:3: A cell begins with a quote"):
        load_prompts(path)


def test_spaces_around_delimiters_are_no_part_of_ids_and_languages(tmp_path: Path) -> None:
    (prompt,) = load_prompts(write(tmp_path, "set.csv", "text, id, language\na fox, 1, en\n"))
    assert (prompt.id, prompt.language) == ("1", "en")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20).filter(
            lambda text: text.strip()
        ),
        min_size=1,
        max_size=5,
    )
)
def test_any_texts_survive_a_csv_file(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = write(tmp_path_factory.mktemp("csv"), "set.csv", table(["prompt"], *([text] for text in texts)))
    assert [prompt.prompt for prompt in load_prompts(path)] == [text.strip() for text in texts]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet", ""]))
def test_any_bytes_end_in_prompts_or_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("bytes") / f"set{suffix}"
    path.write_bytes(content)
    with suppress(UserError):
        assert load_prompts(path)


# ---------------------------------------------------------------- images to start from


@pytest.mark.parametrize("more", [{}, {"strength": 0.4}, {"language": "en"}])
def test_images_are_beside_the_prompts(tmp_path: Path, more: dict[str, object]) -> None:
    entries = [{"prompt": CAT, "image": "a/cat.png", **more}, {"prompt": CAT, "image": "/b.png"}, {"prompt": SIGN}]
    path = write(tmp_path, "set.jsonl", "\n".join(map(json.dumps, entries)))
    prompts = load_prompts(path, allow_images=True)
    assert [prompt.image for prompt in prompts] == [str(tmp_path / "a" / "cat.png"), "/b.png", None]
    assert prompts[0].strength == more.get("strength")


def test_images_of_data_sets_are_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, "set.jsonl", json.dumps({"prompt": CAT, "image": "cat.png", "width": 5}))
    assert load_prompts(path, allow_images=True) == load_prompts(path) == EXPECTED[:1]
    assert "not used: image, width" in caplog.text
    path = write(tmp_path, "set.jsonl", json.dumps({"prompt": CAT, "image": "cat.png"}))
    assert load_prompts(path) == EXPECTED[:1]


@pytest.mark.parametrize(
    ("entry", "allow_images", "message"),
    [
        (
            {"strength": 0.4},
            False,
            "set.jsonl:1: strength has an effect in 'edgepress generate --prompts' only. Remove it",
        ),
        ({"image": "a.png", "lines": []}, False, "image has an effect in 'edgepress generate --prompts' only"),
        ({"image": ""}, True, "image must be a non-empty string"),
        ({"image": 5}, True, "image must be a non-empty string"),
        ({"strength": 0}, True, "strength = 0: it must be"),
        ({"strength": "0.5"}, True, "strength = '0.5': must have numbers only"),
        (
            {"image": "a.png", "strenght": 0.5, "language": "en"},
            True,
            "Unknown key 'strenght'; did you mean 'strength'?",
        ),
    ],
)
def test_what_cannot_be_an_image_to_start_from(
    tmp_path: Path, entry: dict[str, object], allow_images: bool, message: str
) -> None:
    path = write(tmp_path, "set.jsonl", json.dumps({"prompt": CAT, **entry}))
    with pytest.raises(UserError) as error:
        load_prompts(path, allow_images=allow_images)
    assert message in str(error.value)


# ---------------------------------------------------------------- Parquet


def test_parquet_needs_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"needs the package 'pyarrow'.*pip install pyarrow"):
        load_prompts(write(tmp_path, "set.parquet", "PAR1"))


def test_parquet_is_read_without_its_other_columns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pyarrow: ModuleType = pytest.importorskip("pyarrow")
    parquet: ModuleType = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "set.PARQUET"
    parquet.write_table(pyarrow.table({"Caption": [CAT, SIGN], "image": [b"x", b"y"]}), path)
    assert load_prompts(path) == EXPECTED
    assert "column 'Caption'" in caplog.text
    assert "not used: image" in caplog.text
    parquet.write_table(pyarrow.table({"image": [b"x"]}), path)
    with pytest.raises(UserError, match="There is no column 'prompt'; there are 'image'"):
        load_prompts(path)


def test_a_damaged_parquet_file_is_reported(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(UserError, match=r"set\.parquet cannot be read .*must be a Parquet file"):
        load_prompts(write(tmp_path, "set.parquet", "PAR1 and more"))


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("set.csv", "prompt,x\na cat, a dog,1\n", "set.csv:2: The row has more cells than the header"),
        ("set.csv", "prompt,x\n,1\n", "set.csv:2: The prompt is empty"),
        ("set.csv", "x,prompt\n1\n", "set.csv:2: the prompt is missing"),
        ("set.csv", "prompt,prompt\na,b\n", "The column 'prompt' is given twice"),
        ("set.csv", "id,prompt\n1,a\n1,b\n", "set.csv:3: Duplicate prompt id '1', which"),
        ("set.csv", "id,prompt\n,a\n", "set.csv:2: The id is empty"),
        ("set.csv", "id,prompt\na/b,a\n", 'set.csv:2: The id "a/b" is a path'),
        ("set.csv", "prompt,language\na,German\n", 'language is "German". Write one of en, zh, mixed'),
        ("set.csv", 'prompt\n"a" b\n', "set.csv cannot be read"),
        ("set.csv", "width,height\n1,2\n", "There is no column 'prompt'; there are 'width', 'height'"),
        ("set.csv", "# of today\nprompt,id\na,b\n", "There is no column 'prompt'; there are '# of today'."),
        ("set.csv", "promt\na\n", "did you mean 'promt'?"),
        ("set.jsonl", '{"text": ["a", "b"]}', 'text is ["a", "b"], which is no text'),
        ("set.jsonl", '{"text": "a"}\n{"caption": "b"}', "set.jsonl:2: the text is missing"),
        ("set.json", '{"prompts": [1]}', "entry 0: This is not an object"),
        ("set.json", "5", "This is not an object"),
        ("set.txt", "\n \n", "has no prompts"),
        ("set.txt", "", "has no prompts"),
        ("set.docx", "PK and so on", "has no known format. Give a file that ends in .jsonl"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(UserError) as raised:
        load_prompts(path)
    assert message in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_another_encoding_is_named_with_its_line(encoding: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set\.txt cannot be read \(line 2 is not UTF-8\)"):
        load_prompts(write(tmp_path, "set.txt", "a sign\na café\n", encoding))


def test_an_id_that_only_some_entries_lack_is_made_from_the_text(tmp_path: Path) -> None:
    file = tmp_path / "set.jsonl"
    file.write_text('"a fox"\n{"id": "b", "prompt": "a cat"}', "utf-8")
    first, second = load_prompts(file)
    assert (first.prompt, second.id) == ("a fox", "b")
    assert first.id == load_prompts(write(tmp_path, "plain.txt", "a fox"))[0].id
