"""The schema of recipes: defaults, derived settings, and values that are rejected."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.recipes import load_error, write_recipe
from pydantic import ValidationError

from edgepress.recipes.loader import load_recipe, recipe_names
from edgepress.recipes.schema import LARGE_MODEL_PARAMETERS, METHOD_STEPS, QuantizationSettings, Recipe, Scheme

INT8 = "bits: 8, group_size: channel, symmetric: true, narrow_range: true"


def test_only_the_device_is_required(tmp_path: Path) -> None:
    assert load_recipe(write_recipe(tmp_path, "device: shelf")) == Recipe(device="shelf")


def test_nested_settings_are_read(tmp_path: Path) -> None:
    text = "device: pi5\nquantize: {method: rtn, scheme: {group_size: 32}}\nevaluation: {size: [64, 96], steps: 1}\n"
    recipe = load_recipe(write_recipe(tmp_path, text))
    assert recipe.quantize.method == "rtn"
    assert recipe.quantize.scheme.group_size == 32
    assert recipe.evaluation.size == (64, 96)
    assert recipe.evaluation.steps == 1


def test_a_method_stands_for_steps_which_may_be_given_instead(tmp_path: Path) -> None:
    assert QuantizationSettings().resolved_steps == METHOD_STEPS["best"] == ("choose",)
    assert QuantizationSettings(method="gptq").resolved_steps == ("gptq",)
    assert QuantizationSettings(method="awq").resolved_steps == ("scale", "clip")
    assert QuantizationSettings(method="rtn").resolved_steps == ()
    text = "device: x\nquantize: {method: awq, steps: [scale, range_search, scale_refit]}"
    recipe = load_recipe(write_recipe(tmp_path, text))
    assert recipe.quantize.resolved_steps == ("scale", "range_search", "scale_refit")
    assert load_recipe(write_recipe(tmp_path, "device: x\nquantize: {steps: []}")).quantize.resolved_steps == ()


def test_extra_schemes_have_names_and_may_differ_from_the_primary_scheme(tmp_path: Path) -> None:
    text = "\n".join(
        (
            "device: x",
            "quantize:",
            "  extra_schemes:",
            "    trt: {group_size: 64, symmetric: true}",
            "    rknn: {group_size: channel, symmetric: true, narrow_range: true}",
            "    bytes: {bits: 8}",
        )
    )
    assert load_recipe(write_recipe(tmp_path, text)).quantize.extra_schemes == {
        "trt": Scheme(group_size=64, symmetric=True),
        "rknn": Scheme(group_size="channel", symmetric=True, narrow_range=True),
        "bytes": Scheme(bits=8),
    }


def test_an_extra_scheme_may_quantize_activations(tmp_path: Path) -> None:
    text = f"device: x\nquantize: {{extra_schemes: {{w8a8: {{{INT8}, activations: static, max_output_error: 0.01}}}}}}"
    quantization = load_recipe(write_recipe(tmp_path, text)).quantize
    scheme = quantization.extra_schemes["w8a8"]
    assert (scheme.activations, scheme.max_output_error) == ("static", 0.01)
    assert quantization.quantizes_activations
    assert not QuantizationSettings(extra_schemes={"bytes": Scheme(bits=8)}).quantizes_activations


def test_the_group_size_channel_is_the_width_of_the_layer() -> None:
    assert Scheme(group_size=64).resolve_group_size(3840) == 64
    assert Scheme(group_size="channel").resolve_group_size(3840) == 3840


@pytest.mark.parametrize(("text", "tune"), [("off", "off"), ("auto", "auto"), ("2.5", 2.5), ("10", 10.0)])
def test_tune_is_a_word_or_minutes(tmp_path: Path, text: str, tune: str | float) -> None:
    """YAML reads `off` as false."""
    assert load_recipe(write_recipe(tmp_path, f"device: x\nquantize: {{tune: {text}}}")).quantize.tune == tune


def test_an_extra_scheme_cannot_have_the_name_of_the_primary_one(tmp_path: Path) -> None:
    message = load_error(tmp_path, "device: x\nquantize: {extra_schemes: {model: {bits: 8}}}")
    assert "quantize.extra_schemes cannot contain 'model'" in message


def test_a_recipe_is_immutable() -> None:
    recipe = load_recipe("orin")
    with pytest.raises(ValidationError, match="frozen"):
        recipe.device = "pi5"
    with pytest.raises(ValidationError, match="frozen"):
        recipe.quantize.scheme.group_size = 64


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("quantize: {scheme: {group_size: 100}}", ["quantize.scheme.group_size", "100", "32, 64, 128"]),
        ("quantize: {tune: maybe}", ["quantize.tune", "maybe", "off, auto, or minutes"]),
        ("quantize: {tune: 0}", ["quantize.tune", "off, auto, or minutes"]),
        ("quantize: {tune: true}", ["tune cannot be true or false"]),
        ("quantize: {scheme: {bits: 5}}", ["quantize.scheme.bits", "5", "4 or 8"]),
        ("quantize: {scheme: {bits: 8}}", ["quantize.scheme must have 4 bits", "quantize.extra_schemes"]),
        ("quantize: {scheme: {group_size: channel}}", ["groups of 32, 64 or 128", "quantize.extra_schemes"]),
        ("quantize: {scheme: {narrow_range: true}}", ["quantize.scheme", "symmetric: true"]),
        ("quantize: {extra_schemes: {npu: {narrow_range: true}}}", ["extra_schemes.npu", "symmetric: true"]),
        ("quantize: {extra_schemes: {npu: {bits: 3}}}", ["quantize.extra_schemes.npu.bits", "3", "4 or 8"]),
        ("quantize: {extra_schemes: {npu: {group_size: rows}}}", ["extra_schemes.npu.group_size", "'channel'"]),
        (
            "quantize: {extra_schemes: {w: {activations: dynamic}}}",
            ["quantize.extra_schemes.w", "bits: 8, group_size: channel"],
        ),
        (
            f"quantize: {{extra_schemes: {{w: {{{INT8}, activations: 8}}}}}}",
            ["activations", "'dynamic' or 'static'"],
        ),
        (
            f"quantize: {{extra_schemes: {{w: {{{INT8}, max_output_error: 0}}}}}}",
            ["max_output_error", "greater than 0"],
        ),
        ("export: {precision: w8a8, activations: none}", ["export.activations", "'dynamic' or 'static'"]),
        ("rknn: {tile: 63}", ["rknn.tile", "63"]),
        ("rknn: {tile: 48}", ["rknn.tile", "48", "at least 64"]),
        ("rknn: {tile: 100}", ["rknn.tile", "100", "multiple of 16"]),
        ("quantize: {components: [vae, vae]}", ["quantize.components", "twice"]),
        ("quantize: {method: hqq}", ["quantize.method", "'hqq'", "'rtn', 'awq', 'gptq' or 'best'"]),
        (
            "quantize: {steps: [gptq, range_search]}",
            ["quantize.steps", "scale, clip, range_search, gptq, scale_refit", "order"],
        ),
        ("quantize: {steps: [gptq, gptq]}", ["quantize.steps", "at most once"]),
        ("quantize: {steps: [hqq]}", ["quantize.steps", "'hqq'", "'scale', 'clip', 'range_search'"]),
        ("quantize: {embeddings: int4}", ["quantize.embeddings", "'int4'", "'keep' or 'int8'"]),
        ("dtype: float16", ["dtype", "'float16'", "'float32'", "'bfloat16'"]),
        ("evaluation: {count: 0}", ["evaluation.count", "0", "at least 1"]),
        ("evaluation: {count: many}", ["evaluation.count", "'many'", "whole number"]),
        ("calibration: {guidance: -1}", ["calibration.guidance", "-1", "at least 0"]),
        ("calibration: {guidance: .nan}", ["calibration.guidance", "nan"]),
        ("quantize: 4", ["quantize", "4"]),
        ("quantize: {components: []}", ["quantize.components is empty"]),
    ],
)
def test_an_invalid_value_is_reported_with_its_key_and_what_is_allowed(
    tmp_path: Path, text: str, fragments: list[str]
) -> None:
    message = load_error(tmp_path, f"device: x\n{text}")
    assert not [fragment for fragment in fragments if fragment not in message], message


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("device: ../../evil", ["device", "begin with a letter or digit"]),
        ("device: [x]", ["device", "[x]", "text"]),
        ("model: demo", ["'device' is missing"]),
    ],
)
def test_the_device_must_be_a_plain_name(tmp_path: Path, text: str, fragments: list[str]) -> None:
    message = load_error(tmp_path, text)
    assert not [fragment for fragment in fragments if fragment not in message], message


@pytest.mark.parametrize("size", ["[64]", "[64, 64, 64]", "large", "[0, 64]", "[64, -64]", "64"])
def test_an_invalid_size_is_reported_with_both_forms_that_are_allowed(tmp_path: Path, size: str) -> None:
    message = load_error(tmp_path, f"device: x\nevaluation: {{size: {size}}}")
    assert "evaluation.size" in message
    assert "native" in message
    assert "[H, W]" in message


def test_a_large_model_changes_the_keys_that_are_given_and_no_others(tmp_path: Path) -> None:
    text = """
device: x
quantize: {method: awq, extra_schemes: {npu: {bits: 8}}}
evaluation: {count: 7, steps: 3, gates: {psnr_min: 40, text_accuracy_drop: 1}}
presets: {fast: {steps: 2}}
large_model:
  quantize: {embeddings: int8, extra_schemes: {}}
  evaluation: {size: [512, 512], gates: {text_accuracy_drop: 5}}
  presets: {fast: {size: [448, 448]}}
"""
    recipe = load_recipe(write_recipe(tmp_path, text))
    small, large = recipe.for_model(LARGE_MODEL_PARAMETERS - 1), recipe.for_model(LARGE_MODEL_PARAMETERS)
    assert small == recipe.model_copy(update={"large_model": None})
    assert (large.quantize.method, large.quantize.embeddings, large.quantize.extra_schemes) == ("awq", "int8", {})
    assert (large.evaluation.count, large.evaluation.steps, large.evaluation.size) == (7, 3, (512, 512))
    assert large.evaluation.gates == {"text_accuracy_drop": 5}  # a mapping is replaced as a whole
    assert (large.presets.fast.steps, large.presets.fast.size) == (2, (448, 448))
    assert large.presets.quality == recipe.presets.quality
    assert large.large_model is None


def test_what_a_large_model_changes_must_fit_what_it_does_not(tmp_path: Path) -> None:
    text = """
device: x
quantize: {scheme: {symmetric: true, narrow_range: true}}
large_model: {quantize: {scheme: {symmetric: false}}}
"""
    message = load_error(tmp_path, text)
    assert "with the keys of large_model, quantize.scheme: narrow_range requires symmetric: true" in message


def test_a_typo_below_large_model_is_answered_with_the_nearest_key(tmp_path: Path) -> None:
    message = load_error(tmp_path, "device: x\nlarge_model: {evaluation: {gate: {psnr_min: 3}}}")
    assert "large_model.evaluation.gate" in message
    assert "did you mean 'gates'?" in message


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_states_its_device_and_presets_for_both_sizes(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.hardware is not None
    assert recipe.export.precision in recipe.hardware.formats
    assert list(recipe.hardware.memory) == sorted(recipe.hardware.memory)
    assert bool(recipe.hardware.memory) == bool(recipe.hardware.sources)
    for parameters in (0, 10**10):
        presets = recipe.for_model(parameters).presets
        assert presets.fast.steps < presets.quality.steps
    if recipe.rknn:
        assert recipe.hardware.memory == (recipe.rknn.memory,)


@pytest.mark.parametrize("name", ["pi5", "cpu-arm64", "rk3588", "rk3588-8gb", "rk3588s-4gb"])
def test_recipes_for_arm64_cpus_keep_zero_points_and_refuse_fp16(name: str) -> None:
    """ONNX Runtime rounds the activations of symmetric weights by row there, and sums float16 in float16."""
    recipe = load_recipe(name)
    assert recipe.hardware is not None
    assert "fp16" not in recipe.hardware.formats
    assert recipe.export.precision == "int4"
    assert not recipe.quantize.scheme.symmetric
