from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.common.errors import UserError
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
    ]
    assert len(set(keys)) == len(keys)
    assert make_cache_key("text", "1", "c", ["aa"], PROMPT.model_copy(update={"id": "b"})) == keys[0]


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "scores.sqlite"
    file.write_text("this is not a database" * 40)
    message = r"scores\.sqlite is not a valid score cache \(.*\)\. Delete it and run again\."
    with pytest.raises(UserError, match=message), open_score_cache(file):
        pass
