"""Reads results.json of schema version 2: renames its keys to those of version 3; all values stay the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Converter = Callable[[Any], Any]


def _object(names: Mapping[str, str] | None = None, **fields: Converter) -> Converter:
    """Returns a converter of JSON objects; what is not an object stays as it is, for the schema to reject.

    Args:
        names: new key by old key.
        fields: converters of values, by old key.
    """

    def convert(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        converted = {key: fields[key](item) if key in fields else item for key, item in value.items()}
        return {(names or {}).get(key, key): item for key, item in converted.items()}

    return convert


def _items(convert_item: Converter) -> Converter:
    """Returns a converter of all items of an array, or of all values of an object whose keys are names."""

    def convert(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: convert_item(item) for key, item in value.items()}
        return [convert_item(item) for item in value] if isinstance(value, list) else value

    return convert


_MEAN = _object({"prompts": "num_prompts"})
_IMAGE = _object(notes=_object({"cut": "truncated"}))
_PAIR = _object({"picture": "image"}, picture=_IMAGE)
_SAMPLE = _object(
    {"truth": "ground_truth", "floor": "noise_floor"}, reference=_IMAGE, variants=_items(_PAIR), floor=_PAIR
)
_GROUP = _object(
    {"pictures": "num_pairs", "pairs": "pair_scores", "scores": "image_scores"},
    pairs=_items(_object(mean=_MEAN)),
    scores=_items(_object({"relative": "relative_drop"}, reference=_MEAN, variant=_MEAN, drop=_MEAN)),
)
_SUMMARY = _object(
    {
        "pictures": "num_pairs",
        "prompts": "num_prompts",
        "identical": "num_identical",
        "detectable": "minimum_detectable_effect",
        "worst": "worst_pairs",
    },
    groups=_items(_GROUP),
    mcnemar=_items(_object({"p": "p_value"})),
)
_BASELINE = _object(
    {"only_then": "only_baseline", "only_now": "only_current"},
    changes=_items(_object({"before": "baseline", "after": "current"}, change=_MEAN)),
)
_IDENTITY = _object(
    {"truth": "ground_truth", "prompts": "prompt_set", "pictures": "image_folder"},
    sampling=_object({"seeds": "num_seeds"}),
)
_RESULTS = _object(
    {
        "seconds": "stage_seconds",
        "costs": "metric_costs",
        "picture_scores": "image_scores",
        "unmeasured": "unavailable_metrics",
        "floor": "noise_floor",
        "limited": "prompt_subset",
        "rows": "samples",
    },
    schema_version=lambda _: 3,
    identity=_IDENTITY,
    costs=_items(_object({"made": "computed", "kept": "cached", "seconds": "cpu_seconds"})),
    variants=_items(_SUMMARY),
    floor=_SUMMARY,
    gates=_items(_object({"detectable": "minimum_detectable_effect"})),
    baseline=_BASELINE,
    history=_items(_object({"pictures": "num_pairs"})),
    limited=_object({"prompts": "total", "by": "limited_by"}),
    rows=_items(_SAMPLE),
)


def upgrade_version_2(content: dict[str, Any]) -> dict[str, Any]:
    """Returns the content of a results.json of schema version 2 in the form of version 3."""
    upgraded: dict[str, Any] = _RESULTS(content)
    return upgraded
