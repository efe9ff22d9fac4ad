"""Benchmarks of a small artifact in a real worker process, among them one that is killed."""

from __future__ import annotations

import os
import signal

import pytest
from helpers.processes import find_workers
from helpers.small_artifact import write_small_artifact

from edgepress.common.errors import UserError
from edgepress.perf import worker_process
from edgepress.perf.runner import BenchConfig, run_benchmark
from edgepress.prompts.prompt import Prompt

PROMPTS = [Prompt(id="a", prompt="a cat", language="en"), Prompt(id="b", prompt="rain", language="en")]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> BenchConfig:
    folder = tmp_path_factory.mktemp("bench") / "artifact"
    write_small_artifact(folder)
    return BenchConfig(folder, PROMPTS, "two", 50, (32, 32), 1, None, 5, True, ())


@pytest.mark.slow
def test_killed_worker_leaves_partial_results(config: BenchConfig) -> None:
    def progress(stage: str, done: int, _: int) -> None:
        if (stage, done) == ("generating", 3):
            (worker,) = find_workers()
            os.kill(worker, signal.SIGKILL)

    results = run_benchmark(config, lambda _: None, progress)
    assert len(results.images) == 3
    assert [(image.prompt, image.seed) for image in results.images] == [("a", 5), ("b", 6), ("a", 7)]
    assert results.incomplete_reason is not None
    reason = "The worker process was killed by signal 9 (Killed), after image 2; peak memory "
    assert results.incomplete_reason.startswith(reason)
    grown = results.memory.peak - max(image.peak_rss for image in results.images)
    assert 0 <= grown < 10e6  # by what the worker did on the next image until it was killed
    assert results.memory.peak > 20e6


def test_worker_that_fails_to_start_is_reported_with_its_last_line(
    config: BenchConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "MODULE", "edgepress.perf.nowhere")
    with pytest.raises(UserError) as raised:
        run_benchmark(config, lambda _: None)
    assert str(raised.value).startswith("The worker process ended with exit code 1 (")
    assert "No module named edgepress.perf.nowhere), before it accepted a prompt" in str(raised.value)
