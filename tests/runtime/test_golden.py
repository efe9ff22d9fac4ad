"""How far outputs may differ between processors, against what was measured on them."""

from __future__ import annotations

import pytest

from edgepress.common.cpu_features import CpuFeatures
from edgepress.runtime.golden import find_error_floor
from edgepress.storage.pipeline_config import OnnxPipelineConfig

A76, X86 = CpuFeatures("aarch64", frozenset({"asimddp", "asimdhp"})), CpuFeatures("x86_64", frozenset({"avx2"}))


@pytest.mark.parametrize(
    ("settings", "features", "largest"),  # the largest difference between processors, of the demo's graphs
    [
        ({"precision": "fp32"}, A76, 2.3e-6),
        ({"precision": "int4", "accuracy_level": 0}, A76, 5e-7),
        ({"precision": "int4", "accuracy_level": 4}, A76, 1.1e-2),
        ({"precision": "w8a8"}, A76, 8.7e-3),
        ({"precision": "fp16"}, A76, 2.6e-2),
        ({"precision": "fp16"}, X86, 4.9e-4),
        ({"precision": "int4", "float_dtype": "fp16"}, A76, 9.1e-3),
    ],
)
def test_the_floor_is_above_what_sound_processors_differ_by(
    settings: dict[str, object], features: CpuFeatures, largest: float
) -> None:
    config = OnnxPipelineConfig.model_validate({"family": "ZImagePipeline", "graphs": {}, "host": {}} | settings)
    assert largest < find_error_floor(config, features) <= 30 * largest


def test_floats_are_held_to_rounding() -> None:
    config = OnnxPipelineConfig(family="ZImagePipeline", precision="fp32", graphs={}, host={})
    assert find_error_floor(config, X86) == 1e-5
