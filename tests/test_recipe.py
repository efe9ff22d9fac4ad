"""Recipes: what is shipped loads, and a mistake is answered with one sentence that names it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from edgepress.errors import UserError
from edgepress.recipe import Recipe, load, names


def written(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text, "utf-8")
    return str(path)


def refusal(folder: Path, text: str) -> str:
    """The one sentence that refuses a recipe."""
    path = written(folder, text)
    with pytest.raises(UserError) as refused:
        load(path)
    sentence = str(refused.value)
    assert path in sentence
    assert "\n" not in sentence
    return sentence


def test_orin_is_int4_awq_in_groups_of_128_with_zero_points() -> None:
    recipe = load("orin")
    assert recipe.device == "orin"
    assert recipe.model == "demo"
    assert recipe.quantize.method == "awq"
    assert recipe.quantize.components == ("transformer", "text_encoder")
    assert recipe.quantize.scheme.model_dump() == {"bits": 4, "group_size": 128, "zero_point": True}
    assert (recipe.calibration.count, recipe.evaluation.count) == (32, 64)


@pytest.mark.parametrize("name", names())
def test_every_shipped_recipe_loads_and_is_named_after_its_device(name: str) -> None:
    assert load(name).device == name


def test_orin_is_shipped() -> None:
    assert "orin" in names()


def test_a_recipe_may_leave_out_everything_but_its_device(tmp_path: Path) -> None:
    assert load(written(tmp_path, "device: shelf")) == Recipe(device="shelf")


def test_a_recipe_from_a_file_is_read_to_its_depth(tmp_path: Path) -> None:
    text = "device: pi5\nquantize: {method: rtn, scheme: {group_size: 32}}\nevaluation: {size: [64, 96], steps: 1}\n"
    recipe = load(written(tmp_path, text))
    assert recipe.quantize.method == "rtn"
    assert recipe.quantize.scheme.group_size == 32
    assert recipe.evaluation.size == (64, 96)
    assert recipe.evaluation.steps == 1


def test_a_recipe_cannot_be_changed() -> None:
    recipe = load("orin")
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
    sentence = refusal(tmp_path, text)
    assert repr(key) in sentence
    assert f"did you mean {near!r}?" in sentence


def test_a_key_like_none_is_answered_with_all_that_are_known(tmp_path: Path) -> None:
    sentence = refusal(tmp_path, "device: x\nquantize: {scheme: {zzz: 1}}")
    assert "'quantize.scheme.zzz' is unknown; known here: bits, group_size, zero_point" in sentence


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("device: x\nquantize: {scheme: {group_size: 100}}", ["quantize.scheme.group_size", "100", "32, 64 or 128"]),
        ("device: x\nquantize: {scheme: {bits: 8}}", ["quantize.scheme.bits", "8", "4"]),
        ("device: x\nquantize: {method: gptq}", ["quantize.method", "'gptq'", "'rtn' or 'awq'"]),
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
    sentence = refusal(tmp_path, text)
    assert not [part for part in said if part not in sentence], sentence


@pytest.mark.parametrize("size", ["[64]", "[64, 64, 64]", "large", "[0, 64]", "[64, -64]", "64"])
def test_a_wrong_size_is_answered_with_both_forms_that_are_allowed(tmp_path: Path, size: str) -> None:
    sentence = refusal(tmp_path, f"device: x\nevaluation: {{size: {size}}}")
    assert "evaluation.size" in sentence
    assert "native" in sentence
    assert "[H, W]" in sentence


@pytest.mark.parametrize(
    "text",
    ["device: [", "device: x\n\tmodel: demo", "a: &a *b", "device: 2026-13-45", "device: !!python/name:os.system"],
)
def test_broken_yaml_is_refused(tmp_path: Path, text: str) -> None:
    assert "is not readable YAML" in refusal(tmp_path, text)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"device: \xff\xfe")
    with pytest.raises(UserError, match=r"mine\.yaml is not readable YAML"):
        load(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("text", ["", "- device", "orin", "3"])
def test_yaml_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert "is not a mapping" in refusal(tmp_path, text)


def test_keys_that_are_no_strings_are_refused(tmp_path: Path) -> None:
    assert "1" in refusal(tmp_path, "device: x\n1: one")


@pytest.mark.parametrize("name", ["orrin", "rk9999", "", "ORIN.", "../pyproject"])
def test_an_unknown_device_is_answered_with_the_devices_there_are(name: str) -> None:
    with pytest.raises(UserError, match=r"There is no recipe.*Devices: .*\borin\b") as refused:
        load(name)
    assert name in str(refused.value)


def test_a_missing_recipe_file_is_named_with_the_devices_there_are() -> None:
    with pytest.raises(UserError, match=r"There is no recipe file elsewhere/mine\.yaml\. Devices: .*orin"):
        load("elsewhere/mine.yaml")
