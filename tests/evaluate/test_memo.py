from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.errors import UserError
from edgepress.evaluate.memo import key_of, opened
from edgepress.evaluate.registry import Reading
from edgepress.prompts import Prompt

ASKED = Prompt(id="a", prompt="x", language="en", lines=("X",))


def test_what_is_kept_is_found_by_later_runs(tmp_path: Path) -> None:
    reading = Reading({"ned": 0.1 + 0.2, "exact": None}, {"read": ("开门", "x")})
    with opened(tmp_path / "deep" / "memo.sqlite") as memo:
        assert memo.get("key") is None
        memo.keep("key", reading)
    with opened(tmp_path / "deep" / "memo.sqlite") as memo, opened(tmp_path / "deep" / "memo.sqlite") as second:
        assert memo.get("key") == second.get("key") == reading


def test_a_second_reading_takes_the_place_of_the_first(tmp_path: Path) -> None:
    with opened(tmp_path / "memo.sqlite") as memo:
        for value in (1.0, 2.0):
            memo.keep("key", Reading({"x": value}, {}))
        assert memo.get("key") == Reading({"x": 2.0}, {})


def test_the_key_says_all_that_a_reading_depends_on() -> None:
    keys = [
        key_of("text", "1", "c", ["aa"], ASKED),
        key_of("text", "1", "d", ["aa"], ASKED),
        key_of("text", "2", "c", ["aa"], ASKED),
        key_of("ned", "1", "c", ["aa"], ASKED),
        key_of("text", "1", "c", ["ab"], ASKED),
        key_of("text", "1", "c", ["aa", "ab"], ASKED),
        key_of("text", "1", "c", ["aa"], ASKED.model_copy(update={"lines": ("Y",)})),
        key_of("text", "1", "c", ["aa"], ASKED.model_copy(update={"language": "zh"})),
        key_of("text", "1", "c", ["aa"], ASKED.model_copy(update={"prompt": "y"})),
    ]
    assert len(set(keys)) == len(keys)
    assert key_of("text", "1", "c", ["aa"], ASKED.model_copy(update={"id": "b"})) == keys[0]


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "memo.sqlite").write_text("no database, whatever its name says" * 40)
    with (
        pytest.raises(UserError, match=r"memo\.sqlite, where readings are kept, is damaged"),
        opened(tmp_path / "memo.sqlite"),
    ):
        pass
