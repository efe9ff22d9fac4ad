"""bench.json as schema version 1 wrote it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from helpers.bench_results import VERSION_1, make_results
from pydantic import ValidationError

from edgepress.common.validation import explain_value
from edgepress.perf.schema import BenchResults


def test_old_keys_are_read() -> None:
    results = BenchResults.model_validate(VERSION_1)
    assert results.incomplete_reason == "interrupted"
    assert results.conditions.power.policies[0].max_hz == 2
    assert results.settings.num_images == 100
    assert results.summary.latencies["image"].max == 1.5
    assert results.memory.file_backed == 1
    assert results.images[0].peak_rss == 3
    assert BenchResults.model_validate_json(results.model_dump_json()) == results


def test_a_summary_of_version_1_that_contradicts_its_images_is_refused() -> None:
    summary = VERSION_1["summary"] | {"first": 1.0}  # type: ignore[operator]
    with pytest.raises(ValidationError, match=r"summary\.first_image is 1, not 2, which is what follows"):
        BenchResults.model_validate(VERSION_1 | {"summary": summary})


def test_written_results_are_read() -> None:
    results = make_results(12, leak=-1000)
    assert results.summary.memory_drift is not None
    assert results.summary.memory_drift.slope < 0
    assert BenchResults.model_validate_json(results.model_dump_json()) == results


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda c: c["images"][1].update(seconds=-0.1), "images.1.seconds = -0.1: it must be at least 0"),
        (lambda c: c["images"][0]["steps"].append(-1), "images.0.steps.2 = -1: it must be at least 0"),
        (
            lambda c: c["summary"]["latencies"]["image"].update(mean=-3),
            "latencies.image.mean = -3: it must be at least",
        ),
        (lambda c: c["summary"]["latencies"]["image"].update(n=0), "latencies.image.n = 0: it must be greater than 0"),
        (lambda c: c["memory"].update(peak=-1), "memory.peak = -1: it must be at least 0"),
        (lambda c: c["settings"].update(steps=0), "settings.steps = 0: it must be greater than 0"),
        (lambda c: c["file_sizes"].update({"a.onnx": -1}), "file_sizes.a.onnx = -1: it must be at least 0"),
        (lambda c: c["machine"].update(cores=0), "machine.cores = 0: it must be greater than 0"),
    ],
)
def test_numbers_out_of_range_are_refused(edit: Callable[[dict[str, Any]], object], problem: str) -> None:
    content = make_results(12).model_dump(mode="json")
    edit(content)
    with pytest.raises(ValidationError) as caught:
        BenchResults.model_validate(content)
    assert problem in explain_value(caught.value.errors()[0])


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (lambda c: c["summary"]["latencies"]["image"].update(mean=9), "latencies.image.mean is 9, not 0.1065"),
        (lambda c: c["summary"]["latencies"]["step"].update(n=3), "latencies.step.n is 3, not 24"),
        (lambda c: c["summary"]["latencies"]["image"]["percentiles"].update(p50=0.01), "percentiles.p50 is 0.01, not"),
        (lambda c: c["summary"].update(startup=0.1), "summary.startup is 0.1, not 1.5"),
        (lambda c: c["summary"]["memory_drift"].update(slope=0), "memory_drift.slope is 0, not"),
        (lambda c: c["images"].pop(), "is 12, not 11, which is what follows from the images"),
        (lambda c: c["images"].clear(), "there is no image"),
        (lambda c: c["memory"].update(peak=1000), "the memory after an image is larger than the peak"),
    ],
)
def test_a_summary_that_contradicts_the_images_is_refused(
    edit: Callable[[dict[str, Any]], object], problem: str
) -> None:
    content = make_results(12, leak=1000).model_dump(mode="json")
    edit(content)
    with pytest.raises(ValidationError) as caught:
        BenchResults.model_validate(content)
    assert problem in explain_value(caught.value.errors()[0])
