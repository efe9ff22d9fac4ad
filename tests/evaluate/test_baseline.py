from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgepress.errors import UserError
from edgepress.evaluate.baseline import check, compare
from edgepress.evaluate.results import Results

from .rows import EXACT, FLIP, PSNR, TEXT, VARIANT, failed, identity, prompt, results_of, row, row_of

FILE = Path("then.json")


@pytest.fixture
def then() -> Results:
    rows = [row(prompt("a"), 30.0, (1, 0.5)), row(prompt("b"), 20.0, (1, 1)), row(prompt("c"), 25.0)]
    return results_of(rows)


def changes(then: Results, now: Results) -> dict[str, Any]:
    check(FILE, then, now.identity)
    return {change.score: change for change in compare(FILE, then, now).changes}


def test_changes_are_paired_by_prompt_and_seed(then: Results) -> None:
    rows = [row(prompt("b"), 24.0, (1, 1)), row(prompt("a"), 31.0, (1, 1)), row_of(prompt("c"), failed())]
    found = changes(then, results_of(rows))
    assert list(found) == [score.name for score in (PSNR, FLIP, TEXT, EXACT)]
    psnr, text = found["psnr"], found["text_accuracy"]
    assert (psnr.variant, psnr.before, psnr.after) == (VARIANT, 25, 27.5)  # c is left out of both
    assert (psnr.change.mean, psnr.change.low, psnr.change.high, psnr.change.count) == (2.5, 1, 4, 2)
    assert (text.before, text.after, text.change.mean) == (0.75, 1, 0.25)


def test_variants_that_only_one_has_are_named(then: Results) -> None:
    one = row(prompt("a"), 30.0)
    rows = [one.model_copy(update={"variants": {"new": one.variants[VARIANT], **one.variants}})]
    subjects = identity().variants
    now = results_of(rows, identity=identity(variants={"new": subjects[VARIANT], **subjects}))
    check(FILE, then, now.identity)
    found = compare(FILE, then, now)
    assert (found.only_now, found.only_then) == (("new",), ())
    assert {change.variant for change in found.changes} == {VARIANT}


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"prompts_sha256": "1" * 64}, "the prompts differ"),
        ({"sampling": identity().sampling.model_copy(update={"seeds": 2})}, "size, steps, guidance or seeds differ"),
        ({"metrics": {"psnr": "1", "text": "another OCR"}}, "the metrics text differ"),
        ({"metrics": {"psnr": "2", "text": "2"}}, "the metrics psnr and the metrics text differ"),
        ({"reference": identity().reference.model_copy(update={"dtype": "bfloat16"})}, "the references differ"),
        ({"truth": identity().reference.folder}, "the true pictures differ"),
        ({"variants": {"other": identity().reference}}, "has none of the variants other, only int4; name candidates"),
    ],
)
def test_what_was_measured_otherwise_is_not_compared(changed: dict[str, Any], sentence: str, then: Results) -> None:
    with pytest.raises(UserError, match=sentence):
        check(FILE, then, identity(**changed))


def test_other_libraries_and_new_metrics_may_be_compared(then: Results) -> None:
    now = identity(libraries={"torch": "3"}, metrics={**identity().metrics, "clip_i": "1"})
    check(FILE, then, now)
