"""Results of schema version 2, as edgepress 0.1.0 wrote them: nothing is lost, and every field has its new name."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from edgepress.evaluate.results.legacy import upgrade_version_2
from edgepress.evaluate.results.results_file import load_results, save_results
from edgepress.evaluate.results.schema import TRUNCATED

VERSION_2 = Path(__file__).parent / "data" / "results_version_2.json"  # written by edgepress 0.1.0

NEW_OF_SYSTEMS = ("formats", "weight_bytes", "num_weights", "bits_per_weight", "own_noise")


def leaves(value: Any) -> list[Any]:
    """All values of a JSON document that are neither objects nor arrays."""
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    return [leaf for item in value for leaf in leaves(item)] if isinstance(value, list) else [value]


def test_version_2_is_loaded_with_all_its_values(tmp_path: Path) -> None:
    results = load_results(VERSION_2)
    before, after = json.loads(VERSION_2.read_text("utf-8")), results.model_dump(mode="json")
    assert (before.pop("schema_version"), after.pop("schema_version")) == (2, 3)
    assert after["identity"]["sampling"].pop("negative_prompt") == ""  # which version 2 did not have
    assert (after.pop("costs"), after.pop("reference_cost")) == ({}, None)  # nor these
    for system in (after["identity"]["reference"], *after["identity"]["variants"].values()):
        assert [system.pop(name) for name in NEW_OF_SYSTEMS] == [{}, None, None, None, None]
    images = VERSION_2.parent / before["identity"].pop("pictures")
    assert after["identity"].pop("image_folder") == str(images)
    assert Counter(map(repr, leaves(after))) == Counter(map(repr, leaves(before)))
    save_results(results, tmp_path / "results.json")
    assert load_results(tmp_path / "results.json") == results


def test_fields_of_version_2_have_their_new_names() -> None:
    results = load_results(VERSION_2)
    first, truncated, failed, _ = results.samples
    summary = results.variants["int4"]
    assert (summary.num_pairs, summary.num_prompts, summary.failures[0].failure) == (3, 3, "missing")
    assert summary.groups[0].pair_scores["psnr"].mean.num_prompts == 3
    assert (summary.worst_pairs[0].score, summary.worst_pairs[0].value) == ("psnr", 9)
    assert (first.ground_truth, first.noise_floor is not None) == ("truth/a.png", True)
    assert (failed.variants["int4"].image, failed.variants["int4"].failure) == (None, "missing")
    image = truncated.variants["int4"].image
    assert image is not None
    assert image.notes[TRUNCATED] == ("what is cut is 'red'.",)
    assert (results.prompt_subset, results.identity.sampling.num_seeds) != (None, None)
    assert (results.metric_costs["text"].computed, results.metric_costs["text"].cached) == (4, 2)


def test_upgrading_leaves_its_argument_alone() -> None:
    content = json.loads(VERSION_2.read_text("utf-8"))
    upgrade_version_2(content)
    assert content == json.loads(VERSION_2.read_text("utf-8"))


@pytest.mark.parametrize("value", [None, 5, "x", [], [1], {}, {"a": 1}])
def test_what_has_another_shape_is_left_for_the_schema_to_reject(value: Any) -> None:
    upgraded = upgrade_version_2({"schema_version": 2, "rows": value, "variants": value, "floor": value})
    assert upgraded == {"schema_version": 3, "samples": value, "variants": value, "noise_floor": value}
