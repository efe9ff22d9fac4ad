from __future__ import annotations

import codecs
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepress.common.errors import UserError
from edgepress.prompts.text_file import read_text_file, split_lines

TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=30)


def test_big_endian_files_are_read(tmp_path: Path) -> None:
    for mark, encoding in ((codecs.BOM_UTF16_BE, "utf-16-be"), (codecs.BOM_UTF32_BE, "utf-32-be")):
        (tmp_path / "a.txt").write_bytes(mark + "牌子 SALE".encode(encoding))
        assert read_text_file(tmp_path / "a.txt") == "牌子 SALE"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"one\r\ntwo\rcaf\xe9\n", "line 3 is not UTF-8"),
        (codecs.BOM_UTF16_LE + "a\nb".encode("utf-16-le") + b"\x00\xd8", "line 2 is not UTF-16-LE"),
        ("a\nb".encode("utf-16-le"), "line 1 contains the character NUL"),
        (b"one\ntwo\0", "line 2 contains the character NUL"),
    ],
)
def test_what_is_no_text_is_named_with_its_line(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=rf"Prompt file .*a\.txt cannot be read \({reason}.*must be a UTF-8 text file"):
        read_text_file(tmp_path / "a.txt")


@pytest.mark.parametrize(("name", "reason"), [("absent.txt", "No such file"), (".", "Is a directory")])
def test_what_is_no_file_is_named(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"cannot be read \({reason}"):
        read_text_file(tmp_path / name)


@given(
    st.lists(st.text(st.characters(blacklist_characters="\r\n"), max_size=5), min_size=1),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_lines_end_at_the_line_ends_of_all_systems_alone(lines: list[str], end: str) -> None:
    """Unlike `str.splitlines`, which ends lines at U+2028 as well."""
    assert split_lines(end.join(lines)) == lines
