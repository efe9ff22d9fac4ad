"""Recipes: what is shipped loads, and a mistake is answered with one sentence that names it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from edgepress.common.errors import UserError
from edgepress.recipes.loader import load_recipe, recipe_names
from edgepress.recipes.schema import METHOD_STEPS, QuantizationSettings, Recipe, Scheme


def write_recipe(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text, "utf-8")
    return str(path)


def load_error(folder: Path, text: str) -> str:
    """The one sentence that refuses a recipe."""
    path = write_recipe(folder, text)
    with pytest.raises(UserError) as raised:
        load_recipe(path)
    sentence = str(raised.value)
    assert path in sentence
    assert "\n" not in sentence
    return sentence


def test_orin_is_int4_in_groups_of_128_with_zero_points() -> None:
    recipe = load_recipe("orin")
    assert recipe.device == "orin"
    assert recipe.model == "demo"
    assert recipe.quantize.method == "best"
    assert recipe.quantize.components == ("transformer", "text_encoder")
    assert recipe.quantize.scheme == Scheme(bits=4, group_size=128, zero_point=True, narrow_range=False)
    assert (recipe.calibration.count, recipe.evaluation.count) == (32, 64)


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads_and_is_named_after_its_device(name: str) -> None:
    assert load_recipe(name).device == name


def test_orin_is_shipped() -> None:
    assert "orin" in recipe_names()


def test_a_recipe_may_leave_out_everything_but_its_device(tmp_path: Path) -> None:
    assert load_recipe(write_recipe(tmp_path, "device: shelf")) == Recipe(device="shelf")


def test_a_recipe_from_a_file_is_read_to_its_depth(tmp_path: Path) -> None:
    text = "device: pi5\nquantize: {method: rtn, scheme: {group_size: 32}}\nevaluation: {size: [64, 96], steps: 1}\n"
    recipe = load_recipe(write_recipe(tmp_path, text))
    assert recipe.quantize.method == "rtn"
    assert recipe.quantize.scheme.group_size == 32
    assert recipe.evaluation.size == (64, 96)
    assert recipe.evaluation.steps == 1


def test_a_method_stands_for_its_steps_and_steps_may_be_named_instead(tmp_path: Path) -> None:
    assert QuantizationSettings().resolved_steps == METHOD_STEPS["best"] == ("gptq",)
    assert QuantizationSettings(method="awq").resolved_steps == ("scale", "clip")
    assert QuantizationSettings(method="rtn").resolved_steps == ()
    named = load_recipe(write_recipe(tmp_path, "device: x\nquantize: {method: awq, steps: [scale, range, refit]}"))
    assert named.quantize.resolved_steps == ("scale", "range", "refit")
    assert load_recipe(write_recipe(tmp_path, "device: x\nquantize: {steps: []}")).quantize.resolved_steps == ()


def test_further_grids_have_names_and_may_be_what_the_main_one_may_not(tmp_path: Path) -> None:
    text = "\n".join(
        (
            "device: x",
            "quantize:",
            "  also:",
            "    trt: {group_size: 64, zero_point: false}",
            "    rknn: {group_size: channel, zero_point: false, narrow: true}",
            "    bytes: {bits: 8}",
        )
    )
    assert load_recipe(write_recipe(tmp_path, text)).quantize.extra_schemes == {
        "trt": Scheme(group_size=64, zero_point=False),
        "rknn": Scheme(group_size="channel", zero_point=False, narrow_range=True),
        "bytes": Scheme(bits=8),
    }


BYTES = "bits: 8, group_size: channel, zero_point: false, narrow: true"


def test_a_further_grid_may_round_activations_too(tmp_path: Path) -> None:
    text = f"device: x\nquantize: {{also: {{w8a8: {{{BYTES}, activations: static, keep_above: 0.01}}}}}}"
    quantization = load_recipe(write_recipe(tmp_path, text)).quantize
    scheme = quantization.extra_schemes["w8a8"]
    assert (scheme.activations, scheme.max_output_error) == ("static", 0.01)
    assert quantization.quantizes_activations
    assert not QuantizationSettings(extra_schemes={"bytes": Scheme(bits=8)}).quantizes_activations


def test_a_group_is_of_its_size_or_as_wide_as_the_layer() -> None:
    assert Scheme(group_size=64).resolve_group_size(3840) == 64
    assert Scheme(group_size="channel").resolve_group_size(3840) == 3840


def test_a_typo_in_a_further_grid_is_answered_with_the_nearest_key(tmp_path: Path) -> None:
    sentence = load_error(tmp_path, "device: x\nquantize: {also: {trt: {group_sise: 64}}}")
    assert "did you mean 'group_size'?" in sentence


def test_a_further_grid_cannot_take_the_main_ones_name(tmp_path: Path) -> None:
    assert "model" in load_error(tmp_path, "device: x\nquantize: {also: {model: {bits: 8}}}")


def test_a_recipe_cannot_be_changed() -> None:
    recipe = load_recipe("orin")
    with pytest.raises(ValidationError, match="frozen"):
        recipe.device = "other"
    with pytest.raises(ValidationError, match="frozen"):
        recipe.quantize.scheme.group_size = 64


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("device: x\nquantise: {}", "quantise", "quantize"),
        ("device: x\nquantize: {scheme: {group_sise: 64}}", "quantize.scheme.group_sise", "group_size"),
        ("device: x\nquantize: {metod: rtn}", "quantize.metod", "method"),
        ("device: x\nevaluation: {step: 4}", "evaluation.step", "steps"),
        ("devise: x", "devise", "device"),
    ],
)
def test_a_typo_in_a_key_is_answered_with_the_nearest_key(tmp_path: Path, text: str, key: str, near: str) -> None:
    sentence = load_error(tmp_path, text)
    assert repr(key) in sentence
    assert f"did you mean {near!r}?" in sentence


def test_a_key_like_none_is_answered_with_all_that_are_known(tmp_path: Path) -> None:
    sentence = load_error(tmp_path, "device: x\nquantize: {scheme: {zzz: 1}}")
    assert "'quantize.scheme.zzz' is unknown; known here: bits, group_size, zero_point" in sentence


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("device: x\nquantize: {scheme: {group_size: 100}}", ["quantize.scheme.group_size", "100", "32, 64, 128"]),
        ("device: x\nquantize: {scheme: {bits: 5}}", ["quantize.scheme.bits", "5", "4 or 8"]),
        ("device: x\nquantize: {scheme: {bits: 8}}", ["quantize.scheme must have 4 bits", "quantize.also"]),
        ("device: x\nquantize: {scheme: {group_size: channel}}", ["groups of 32, 64 or 128", "quantize.also"]),
        ("device: x\nquantize: {scheme: {narrow: true}}", ["quantize.scheme", "zero_point: false"]),
        ("device: x\nquantize: {also: {npu: {narrow: true}}}", ["quantize.also.npu", "zero_point: false"]),
        ("device: x\nquantize: {also: {npu: {bits: 3}}}", ["quantize.also.npu.bits", "3", "4 or 8"]),
        ("device: x\nquantize: {also: {npu: {group_size: rows}}}", ["quantize.also.npu.group_size", "'channel'"]),
        (
            "device: x\nquantize: {also: {w: {activations: dynamic}}}",
            ["quantize.also.w", "bits: 8, group_size: channel"],
        ),
        (
            f"device: x\nquantize: {{also: {{w: {{{BYTES}, activations: 8}}}}}}",
            ["activations", "'dynamic' or 'static'"],
        ),
        (f"device: x\nquantize: {{also: {{w: {{{BYTES}, keep_above: 0}}}}}}", ["keep_above", "greater than 0"]),
        ("device: x\nexport: {precision: w8a8, activations: float}", ["export.activations", "'dynamic' or 'static'"]),
        ("device: x\nrknn: {tile: 63}", ["rknn.tile", "63"]),
        ("device: x\nrknn: {tile: 48}", ["rknn.tile", "48", "greater than or equal to 64"]),
        ("device: x\nrknn: {tile: 100}", ["rknn.tile", "100", "multiple of 16"]),
        ("device: ../../evil", ["device", "pattern"]),
        ("device: x\nquantize: {components: [vae, vae]}", ["quantize.components", "twice"]),
        ("device: x\nquantize: {method: gptq}", ["quantize.method", "'gptq'", "'rtn', 'awq' or 'best'"]),
        ("device: x\nquantize: {steps: [gptq, range]}", ["quantize.steps", "scale, clip, range, gptq, refit", "order"]),
        ("device: x\nquantize: {steps: [gptq, gptq]}", ["quantize.steps", "each once"]),
        ("device: x\nquantize: {steps: [hqq]}", ["quantize.steps", "'hqq'", "'scale', 'clip', 'range'"]),
        ("device: x\nquantize: {embeddings: int4}", ["quantize.embeddings", "'int4'", "'keep' or 'int8'"]),
        ("device: x\ndtype: float16", ["dtype", "'float16'", "'float32'", "'bfloat16'"]),
        ("device: x\nevaluation: {count: 0}", ["evaluation.count", "0", "greater than or equal to 1"]),
        ("device: x\nevaluation: {count: many}", ["evaluation.count", "'many'", "integer"]),
        ("device: x\ncalibration: {guidance: -1}", ["calibration.guidance", "-1", "greater than or equal to 0"]),
        ("device: x\ncalibration: {guidance: .nan}", ["calibration.guidance", "nan"]),
        ("device: x\nquantize: 4", ["quantize", "4"]),
        ("device: x\nquantize: {components: []}", ["quantize.components is empty"]),
        ("device: [x]", ["device", "['x']", "string"]),
        ("model: demo", ["'device' is missing"]),
    ],
)
def test_a_wrong_value_is_named_with_its_key_and_what_is_allowed(tmp_path: Path, text: str, said: list[str]) -> None:
    sentence = load_error(tmp_path, text)
    assert not [part for part in said if part not in sentence], sentence


@pytest.mark.parametrize("size", ["[64]", "[64, 64, 64]", "large", "[0, 64]", "[64, -64]", "64"])
def test_a_wrong_size_is_answered_with_both_forms_that_are_allowed(tmp_path: Path, size: str) -> None:
    sentence = load_error(tmp_path, f"device: x\nevaluation: {{size: {size}}}")
    assert "evaluation.size" in sentence
    assert "native" in sentence
    assert "[H, W]" in sentence


@pytest.mark.parametrize(
    "text",
    ["device: [", "device: x\n\tmodel: demo", "a: &a *b", "device: 2026-13-45", "device: !!python/name:os.system"],
)
def test_broken_yaml_is_refused(tmp_path: Path, text: str) -> None:
    assert "is not readable YAML" in load_error(tmp_path, text)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"device: \xff\xfe")
    with pytest.raises(UserError, match=r"mine\.yaml is not readable YAML"):
        load_recipe(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("text", ["", "- device", "orin", "3"])
def test_yaml_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert "is not a mapping" in load_error(tmp_path, text)


def test_keys_that_are_no_strings_are_refused(tmp_path: Path) -> None:
    assert "1" in load_error(tmp_path, "device: x\n1: one")


@pytest.mark.parametrize("name", ["orrin", "rk9999", "", "ORIN.", "../pyproject"])
def test_an_unknown_device_is_answered_with_the_devices_there_are(name: str) -> None:
    with pytest.raises(UserError, match=r"There is no recipe.*Devices: .*\borin\b") as raised:
        load_recipe(name)
    assert name in str(raised.value)


def test_a_missing_recipe_file_is_named_with_the_devices_there_are() -> None:
    with pytest.raises(UserError, match=r"There is no recipe file elsewhere/mine\.yaml\. Devices: .*orin"):
        load_recipe("elsewhere/mine.yaml")
