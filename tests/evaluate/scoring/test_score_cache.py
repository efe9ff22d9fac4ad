from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.evaluate.metrics.base import MetricResult
from edgepress.evaluate.scoring.score_cache import make_cache_key, open_score_cache
from edgepress.prompts.prompt import Prompt

ASKED = Prompt(id="a", prompt="x", language="en", lines=("X",))


def test_what_is_kept_is_found_by_later_runs(tmp_path: Path) -> None:
    reading = MetricResult({"ned": 0.1 + 0.2, "exact": None}, {"read": ("开门", "x")})
    with open_score_cache(tmp_path / "deep" / "memo.sqlite") as memo:
        assert memo.get("key") is None
        memo.put("key", reading)
    with (
        open_score_cache(tmp_path / "deep" / "memo.sqlite") as memo,
        open_score_cache(tmp_path / "deep" / "memo.sqlite") as second,
    ):
        assert memo.get("key") == second.get("key") == reading


def test_a_second_reading_takes_the_place_of_the_first(tmp_path: Path) -> None:
    with open_score_cache(tmp_path / "memo.sqlite") as memo:
        for value in (1.0, 2.0):
            memo.put("key", MetricResult({"x": value}, {}))
        assert memo.get("key") == MetricResult({"x": 2.0}, {})


def test_the_key_says_all_that_a_reading_depends_on() -> None:
    keys = [
        make_cache_key("text", "1", "c", ["aa"], ASKED),
        make_cache_key("text", "1", "d", ["aa"], ASKED),
        make_cache_key("text", "2", "c", ["aa"], ASKED),
        make_cache_key("ned", "1", "c", ["aa"], ASKED),
        make_cache_key("text", "1", "c", ["ab"], ASKED),
        make_cache_key("text", "1", "c", ["aa", "ab"], ASKED),
        make_cache_key("text", "1", "c", ["aa"], ASKED.model_copy(update={"lines": ("Y",)})),
        make_cache_key("text", "1", "c", ["aa"], ASKED.model_copy(update={"language": "zh"})),
        make_cache_key("text", "1", "c", ["aa"], ASKED.model_copy(update={"prompt": "y"})),
    ]
    assert len(set(keys)) == len(keys)
    assert make_cache_key("text", "1", "c", ["aa"], ASKED.model_copy(update={"id": "b"})) == keys[0]


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "memo.sqlite").write_text("no database, whatever its name says" * 40)
    with (
        pytest.raises(UserError, match=r"memo\.sqlite, where readings are kept, is damaged"),
        open_score_cache(tmp_path / "memo.sqlite"),
    ):
        pass
