"""Numbers of results.json that contradict its samples or each other are refused wherever the file is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.result_rows import PSNR, make_prompt, make_results, make_sample

from edgepress.common.errors import UserError
from edgepress.evaluate.results.gates import GateSpec, evaluate_gates
from edgepress.evaluate.results.results_file import load_results, save_results

Edit = Callable[[dict[str, Any]], None]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Twelve prompts and a gate that fails."""
    samples = [make_sample(make_prompt(f"p{n}"), 40.0 + n, texts=(1, n % 2), flip=n / 20) for n in range(12)]
    results = make_results(samples)
    gates = evaluate_gates("int4", results.variants["int4"], [GateSpec("psnr_min", "min", PSNR, limit=60)])
    assert gates[0].verdict == "failed"
    save_results(results.model_copy(update={"gates": gates, "verdict": "failed"}), tmp_path / "results.json")
    return tmp_path / "results.json"


def set_value(path: str, value: Any) -> Edit:
    def edit(content: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        for name in parents:
            content = content[int(name) if name.isdigit() else name]
        content[last] = value

    return edit


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("groups/0/pair_scores/psnr/mean/mean", 45.0, r"groups\.0\.pair_scores\.psnr\.mean\.mean is 45, not 45\.5"),
        ("groups/0/pair_scores/psnr/mean/mean", 99.0, r"psnr\.mean has the mean 99 outside of its interval from"),
        ("groups/0/pair_scores/psnr/mean/low", 50.0, r"psnr\.mean has the mean 45\.5 outside of its interval from 50"),
        ("groups/0/pair_scores/psnr/mean/high", None, "has an interval with one end"),
        ("groups/0/pair_scores/psnr/mean/count", 13, r"mean\.count is 13, not 12"),
        ("groups/0/pair_scores/psnr/worst", 20.0, r"psnr\.worst is 20, not 40"),
        ("groups/0/pair_scores/flip/worst_prompt", "x", r"flip\.worst_prompt is 'x', not 'p11'"),
        ("groups/0/image_scores/text_accuracy/drop/num_prompts", 30, r"drop\.num_prompts is 30, not 12"),
        ("groups/0/image_scores", {}, r"image_scores\.text_accuracy is nothing, not"),
        ("num_pairs", 100, r"num_pairs is 100, not 12"),
        ("mcnemar/exact/p_value", 0.9, r"mcnemar\.exact\.p_value is 0\.9, not 0\.03125"),
        ("minimum_detectable_effect/psnr", 1e-9, r"minimum_detectable_effect\.psnr is 1e-09, not 2\."),
    ],
)
def test_aggregates_follow_from_the_samples(file: Path, path: str, value: Any, message: str) -> None:
    content = json.loads(file.read_text("utf-8"))
    set_value(path, value)(content["variants"]["int4"])
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"results\.json contradicts itself: variants\.int4.*{message}.* again\."):
        load_results(file)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("samples/3/variants/int4/values/psnr", 90.0, r"mean is 45\.5, not 49\."),
        ("gates/0/verdict", "passed", r"gates\.0\.verdict is 'passed', not 'failed'"),
        ("gates/0/value", 70.0, r"gates\.0 has the mean 70 outside"),
        ("gates/0/limit", 20.0, r"gates\.0\.verdict is 'failed', not 'passed'"),
        ("identity/variants", {}, "identity.variants are .*, not int4"),
        ("verdict", "passed", "verdict is 'passed', not 'failed'"),
        (
            "reference_defects",
            [{"prompt": "p0", "seed": 0, "defect": "black", "new": False}],
            "1 entry, not nothing",
        ),
    ],
)
def test_gates_and_verdicts_follow_from_the_aggregates(file: Path, path: str, value: Any, message: str) -> None:
    content = json.loads(file.read_text("utf-8"))
    set_value(path, value)(content)
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"contradicts itself: .*{message}"):
        load_results(file)


def test_two_samples_of_a_prompt_and_seed_are_refused(file: Path) -> None:
    content = json.loads(file.read_text("utf-8"))
    content["samples"].append(content["samples"][0])
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match="a prompt and seed has two samples"):
        load_results(file)


@pytest.mark.parametrize("path", ["samples/0/reference/file", "samples/0/ground_truth", "identity/image_folder"])
@pytest.mark.parametrize("value", ["a\0b", "x" * 300])
def test_paths_that_no_file_can_have_are_refused(file: Path, path: str, value: str) -> None:
    content = json.loads(file.read_text("utf-8"))
    set_value(path, value)(content)
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"{path.replace('/', '.')} = .*: no file can have this path"):
        load_results(file)
