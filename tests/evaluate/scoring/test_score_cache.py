from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edgepress.evaluate.metrics.base import MetricResult
from edgepress.evaluate.scoring.score_cache import make_cache_key, open_score_cache
from edgepress.prompts.prompt import Prompt

PROMPT = Prompt(id="a", prompt="x", language="en", lines=("X",))


def test_results_are_shared_by_all_runs(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "scores.sqlite"
    result = MetricResult({"ned": 0.1 + 0.2, "exact": None}, {"read": ("开门", "x")})
    with open_score_cache(file) as cache:
        assert cache.get("key") is None
        cache.put("key", result)
    with open_score_cache(file) as first, open_score_cache(file) as second:
        assert first.get("key") == second.get("key") == result


def test_new_result_replaces_the_old_one(tmp_path: Path) -> None:
    with open_score_cache(tmp_path / "scores.sqlite") as cache:
        for value in (1.0, 2.0):
            cache.put("key", MetricResult({"x": value}, {}))
        assert cache.get("key") == MetricResult({"x": 2.0}, {})


def test_key_depends_on_everything_but_the_prompt_id() -> None:
    keys = [
        make_cache_key("text", "1", "c", ["aa"], PROMPT),
        make_cache_key("text", "1", "d", ["aa"], PROMPT),
        make_cache_key("text", "2", "c", ["aa"], PROMPT),
        make_cache_key("ned", "1", "c", ["aa"], PROMPT),
        make_cache_key("text", "1", "c", ["ab"], PROMPT),
        make_cache_key("text", "1", "c", ["aa", "ab"], PROMPT),
        make_cache_key("text", "1", "c", ["aa"], PROMPT.model_copy(update={"lines": ("Y",)})),
        make_cache_key("text", "1", "c", ["aa"], PROMPT.model_copy(update={"language": "zh"})),
        make_cache_key("text", "1", "c", ["aa"], PROMPT.model_copy(update={"prompt": "y"})),
        make_cache_key("text", "1", "c", ["aa"], PROMPT.model_copy(update={"angle": 90})),
        make_cache_key("text", "1", "c", ["aa"], PROMPT.model_copy(update={"region": (0, 0, 1, 0.5)})),
        make_cache_key("text", "1", "c", ["aa"], PROMPT.model_copy(update={"text_height": (0, 0.5)})),
    ]
    assert len(set(keys)) == len(keys)
    assert make_cache_key("text", "1", "c", ["aa"], PROMPT.model_copy(update={"id": "b"})) == keys[0]


def damage_header(file: Path) -> None:
    file.write_text("this is not a database" * 40)


def damage_pages(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xa5" * len(content[4096:])
    file.write_bytes(content)


def change_columns(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE results (a, b)")


@pytest.mark.parametrize("damage", [damage_header, damage_pages, change_columns])
def test_a_damaged_file_is_replaced(
    damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "scores.sqlite"
    with open_score_cache(file) as cache:
        for number in range(100):
            cache.put(f"key {number}", MetricResult({"x": 1.0}, {}))
    assert caplog.messages == []
    damage(file)
    with open_score_cache(file) as cache:
        assert cache.get("key 0") is None
        cache.put("key 0", MetricResult({"x": 2.0}, {}))
        assert cache.get("key 0") == MetricResult({"x": 2.0}, {})
    assert caplog.messages == [f"The score cache {file} is damaged. It is replaced; scores are computed again."]


@pytest.mark.parametrize(
    "row", ["", "[]", "{", '[{"x": "high"}, {}]', '[{"x": NaN}, {}]', '[{"x": 1}, {"read": "A"}]', "[" * 9000]
)
def test_a_damaged_row_is_computed_again(row: str, tmp_path: Path) -> None:
    file = tmp_path / "scores.sqlite"
    with open_score_cache(file) as cache:
        cache.put("key", MetricResult({"x": 1.0}, {}))
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE results SET result = ?", (row,))
    with open_score_cache(file) as cache:
        assert cache.get("key") is None
