"""Loading recipes: shipped ones, files, and mistakes, each of which is reported in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.recipes import load_error, write_recipe

from edgepress.common.errors import UserError
from edgepress.recipes.loader import load_recipe, recipe_names
from edgepress.recipes.schema import Scheme


def test_orin_is_int4_in_asymmetric_groups_of_128() -> None:
    recipe = load_recipe("orin")
    assert recipe.device == "orin"
    assert recipe.model == "demo"
    assert recipe.quantize.method == "best"
    assert recipe.quantize.components == ("transformer", "text_encoder")
    assert recipe.quantize.scheme == Scheme(bits=4, group_size=128, symmetric=False, narrow_range=False)
    assert (recipe.calibration.count, recipe.evaluation.count) == (32, 64)


def test_orin_is_shipped() -> None:
    assert "orin" in recipe_names()


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads_without_warnings_and_is_named_after_its_device(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert load_recipe(name).device == name
    assert caplog.records == []


def test_a_recipe_is_loaded_by_path_too(tmp_path: Path) -> None:
    write_recipe(tmp_path, "device: shelf")
    assert load_recipe(tmp_path / "mine.yaml").device == "shelf"


@pytest.mark.parametrize(
    ("text", "key", "suggestion"),
    [
        ("device: x\nquantise: {}", "quantise", "quantize"),
        ("device: x\nquantize: {scheme: {group_sise: 64}}", "quantize.scheme.group_sise", "group_size"),
        ("device: x\nquantize: {extra_schemes: {trt: {group_sise: 64}}}", "group_sise", "group_size"),
        ("device: x\nquantize: {metod: rtn}", "quantize.metod", "method"),
        ("device: x\nevaluation: {step: 4}", "evaluation.step", "steps"),
        ("device: x\nrknn: {targt: rk3588}", "rknn.targt", "target"),
        ("devise: x", "devise", "device"),
    ],
)
def test_a_typo_in_a_key_is_answered_with_the_nearest_key(tmp_path: Path, text: str, key: str, suggestion: str) -> None:
    message = load_error(tmp_path, text)
    assert key in message
    assert f"did you mean {suggestion!r}?" in message


def test_an_unknown_key_is_answered_with_all_that_are_known(tmp_path: Path) -> None:
    message = load_error(tmp_path, "device: x\nquantize: {scheme: {zzz: 1}}")
    assert "unknown key 'quantize.scheme.zzz'; known: bits, group_size, symmetric" in message


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("device: x\ndevice: y", "device"),
        ("device: x\nquantize: {method: rtn, method: awq}", "method"),
        ("device: x\nquantize: {extra_schemes: {a: {}, a: {}}}", "a"),
    ],
)
def test_a_key_that_is_given_twice_is_rejected(tmp_path: Path, text: str, key: str) -> None:
    assert f"the key {key!r} is given twice" in load_error(tmp_path, text)


def test_anchors_and_merges_are_read(tmp_path: Path) -> None:
    text = "device: x\ncalibration: &shared {steps: 2}\nevaluation: {<<: *shared, count: 3}"
    recipe = load_recipe(write_recipe(tmp_path, text))
    assert (recipe.evaluation.steps, recipe.evaluation.count) == (2, 3)


@pytest.mark.parametrize(
    "text",
    ["device: [", "device: x\n\tmodel: demo", "a: &a *b", "device: 2026-13-45", "device: !!python/name:os.system"],
)
def test_broken_yaml_is_rejected(tmp_path: Path, text: str) -> None:
    assert "is not readable YAML" in load_error(tmp_path, text)


def test_a_file_that_is_not_text_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes(b"device: \xff\xfe")
    with pytest.raises(UserError, match=r"mine\.yaml is not readable YAML"):
        load_recipe(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("text", ["", "- device", "orin", "3"])
def test_yaml_that_is_not_a_mapping_is_rejected(tmp_path: Path, text: str) -> None:
    assert "is not a mapping" in load_error(tmp_path, text)


@pytest.mark.parametrize("text", ["device: x\n1: one", "device: x\n[1]: one", "device: x\n? {a: 1}\n: 2"])
def test_keys_that_are_not_strings_are_rejected(tmp_path: Path, text: str) -> None:
    assert "1" in load_error(tmp_path, text)


@pytest.mark.parametrize("name", ["orrin", "rk9999", "", "ORIN.", "../pyproject"])
def test_an_unknown_recipe_is_answered_with_the_shipped_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"There is no recipe.*Shipped recipes: .*\borin\b") as raised:
        load_recipe(name)
    assert name in str(raised.value)


def test_a_missing_file_is_answered_with_the_shipped_recipes() -> None:
    with pytest.raises(UserError, match=r"There is no recipe file elsewhere/mine\.yaml\. Shipped recipes: .*orin"):
        load_recipe("elsewhere/mine.yaml")
