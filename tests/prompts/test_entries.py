"""What is read of a file before anything is taken for a prompt: where each entry is, and what its values are."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.prompts.entries import read_entries

COLUMNS = ("prompt", "text")


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, "utf-8")
    return folder / name


@pytest.mark.parametrize(
    ("name", "text", "places"),
    [
        ("a.txt", "one\n\n two\n", [":1", ":3"]),
        ("a.jsonl", '\n{"a": 1}\n\n{"a": 2}', [":2", ":4"]),
        ("a.json", '["one", "two"]', [": entry 0", ": entry 1"]),
        ("a.csv", 'prompt\n"one\nand more"\ntwo\n', [":3", ":4"]),  # the last line of each
        ("a.tsv", "prompt\n\none\ntwo", [":3", ":4"]),
    ],
)
def test_each_entry_knows_its_place(name: str, text: str, places: list[str], tmp_path: Path) -> None:
    path = write(tmp_path, name, text)
    assert [entry.where for entry in read_entries(path, COLUMNS).entries] == [f"{path}{place}" for place in places]


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_the_separator_is_the_one_that_splits_the_header(mark: str, tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", f"id{mark}Prompt\n1{mark}one\n2{mark}two, or; more\n")
    result = read_entries(path, COLUMNS)
    assert result.keeps_quotes == (mark == "\t")
    assert result.entries[0].fields == {"id": "1", "Prompt": "one"}
    if mark == "\t":
        assert result.entries[1].fields["Prompt"] == "two, or; more"


def test_a_folder_has_an_entry_for_each_text_file(tmp_path: Path) -> None:
    for name, text in {"b.txt": "two\n", "a.TXT": "one", ".c.txt": "hidden", "d.png": "image"}.items():
        write(tmp_path, name, text)
    entries = read_entries(tmp_path, COLUMNS).entries
    assert [entry.fields for entry in entries] == [{"item_id": "a", "text": "one"}, {"item_id": "b", "text": "two"}]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "- one", "has no known format. Give a file that ends in .jsonl"),
        ("a.jsonl", '{"a": 1, "a": 2}', "The key 'a' is given twice"),
        ("a.jsonl", '{"a": 1}\n5', "a.jsonl:2: This is not an object"),
        ("a.csv", "prompt,prompt\n1,2", "The column 'prompt' is given twice"),
        ("a.txt/b.txt", " ", "b.txt is empty"),
    ],
)
def test_what_is_no_list_of_entries_is_named(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_entries(tmp_path / Path(name).parts[0], COLUMNS)
    assert message in str(caught.value)
