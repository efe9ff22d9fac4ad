"""Lost digits and signs in configs are found; values of published models are not."""

from __future__ import annotations

from typing import Any

import pytest

from edgepress.common.plausible_values import find_implausible_value


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"scaling_factor": -1}, "scaling_factor = -1: it must be from 0.001 to 10000"),
        ({"scaling_factor": 0}, "scaling_factor = 0: it must be from 0.001 to 10000"),
        ({"rope_parameters": {"rope_theta": 1e30}}, "rope_theta = 1e+30: it must be from 1 to 1e+10"),
        ({"layers": 2, "decoder": {"theta": 0}}, "theta = 0: it must be from 1 to 1e+10"),
        ({"rms_norm_eps": 1e30}, "rms_norm_eps = 1e+30: it must be from 0 to 0.1"),
        ({"layer_norm_epsilon": -1e-6}, "layer_norm_epsilon = -1e-06: it must be from 0 to 0.1"),
        ({"t_scale": float("nan")}, "t_scale = nan: it must be from 0.001 to 10000"),
        ({"latents_std": [1.5, 0.0]}, "latents_std = 0.0: it must be from 0.001 to 10000"),
        (
            {"axes_lens": [10**30, 64]},
            "axes_lens = [1000000000000000000000000000000, 64]: no model has a whole number above 10^12",
        ),
        ({"attention_dropout": 2}, "attention_dropout = 2: it must be from 0 to 1"),
    ],
)
def test_numbers_that_no_model_has_are_found(config: dict[str, Any], problem: str) -> None:
    assert find_implausible_value(config) == problem


@pytest.mark.parametrize(
    "config",
    [
        {"scaling_factor": 0.18215, "shift_factor": None, "norm_eps": 1e-6, "theta": 10_000},  # Stable Diffusion, FLUX
        {"rope_theta": 256.0, "t_scale": 1000.0, "norm_eps": 1e-5, "axes_dims": [32, 48, 48]},  # Z-Image
        {"rope_parameters": {"rope_theta": 5_000_000, "rope_type": "default"}, "rms_norm_eps": 1e-6},  # Qwen3
        {
            "scaling_factor": "x",
            "theta": [],
            "eps": True,
            "latents_mean": [-0.7571, 2.9],
        },  # of other types
    ],
)
def test_numbers_of_published_models_are_taken(config: dict[str, Any]) -> None:
    assert find_implausible_value(config) == ""
