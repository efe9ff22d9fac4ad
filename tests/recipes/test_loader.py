"""Loading recipes: shipped ones, files, and mistakes, each of which is reported in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.recipes import load_error, write_recipe
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgepress.common.errors import UserError
from edgepress.recipes.hardware import PeakRates
from edgepress.recipes.loader import load_recipe, recipe_names
from edgepress.recipes.schema import GenerationSettings, QuantizationSettings, Recipe, Scheme


def test_orin_is_int4_in_asymmetric_groups_of_128() -> None:
    recipe = load_recipe("orin")
    assert recipe.device == "orin"
    assert recipe.model == "demo"
    assert recipe.quantize.method == "gptq"
    assert recipe.quantize.components is None  # denoisers and text encoders, whatever a family calls them
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


@pytest.mark.parametrize("name", recipe_names())
def test_facts_about_a_device_have_sources(name: str) -> None:
    hardware = load_recipe(name).hardware
    assert hardware
    has_facts = hardware.bandwidth is not None or hardware.peak != PeakRates()
    assert bool(hardware.sources) is has_facts


@pytest.mark.parametrize("name", ["cpu-arm64", "pi5", "rk3588", "rk3588-8gb", "rk3588s-4gb"])
def test_cpus_that_sum_in_float16_get_none_and_keep_zero_points(name: str) -> None:
    """KleidiAI, which rounds activations more coarsely, takes weights without zero points alone."""
    recipe = load_recipe(name)
    assert recipe.hardware
    assert set(recipe.hardware.formats) == {"fp32", "int4", "w8a8"}
    assert (recipe.export.precision, recipe.export.float_dtype, recipe.export.accuracy_level) == ("int4", "fp32", 4)
    assert not recipe.quantize.scheme.symmetric


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


@pytest.mark.parametrize("content", [b"device: \xff\xfe", "device: shelf".encode("utf-16")])
def test_a_file_that_is_not_text_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"mine\.yaml is not UTF-8 text\. Save it in that encoding\."):
        load_recipe(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("text", ["", "- device", "orin", "3"])
def test_yaml_that_is_not_a_mapping_is_rejected(tmp_path: Path, text: str) -> None:
    assert "is not a mapping" in load_error(tmp_path, text)


@pytest.mark.parametrize("text", ["device: x\n1: one", "device: x\n[1]: one", "device: x\n? {a: 1}\n: 2"])
def test_keys_that_are_not_strings_are_rejected(tmp_path: Path, text: str) -> None:
    message = load_error(tmp_path, text)
    assert "the key '1' must be text" in message or "line 2 is not readable YAML: found unhashable key" in message


@pytest.mark.parametrize("name", ["orrin", "rk9999", "ORIN.", "../pyproject"])
def test_an_unknown_recipe_is_answered_with_the_shipped_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"There is no recipe.*shipped recipe: .*\borin\b") as raised:
        load_recipe(name)
    assert name in str(raised.value)


def test_a_missing_file_is_answered_with_the_shipped_recipes() -> None:
    with pytest.raises(UserError, match=r"There is no recipe file elsewhere/mine\.yaml\. .*shipped recipe: .*orin"):
        load_recipe("elsewhere/mine.yaml")


# ---------------------------------------------------------------- files as people and attackers have them


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("device: a\ndevice: b", 2, "device"),
        ("device: a\nquantize:\n  method: rtn\n  embeddings: keep\n  'method': awq", 5, "method"),
        ("device: a\nevaluation: {gates: {psnr_min: 1,\n psnr_min: 2}}", 3, "psnr_min"),
        ("base: &base {steps: 1}\ncalibration:\n  <<: *base\n  count: 1\n  count: 2", 5, "count"),
    ],
)
def test_a_key_that_is_given_twice_is_named_with_its_line(tmp_path: Path, text: str, line: int, key: str) -> None:
    message = load_error(tmp_path, text)
    assert f"mine.yaml, line {line} is not readable YAML: the key '{key}' is given twice. Correct it" in message


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "- " * 5000 + "x"])
def test_deep_nesting_is_a_sentence(tmp_path: Path, text: str) -> None:
    assert "is nested too deeply" in load_error(tmp_path, text)


@pytest.mark.parametrize(
    "text", ["device: !!timestamp x", "device: !!int ''", "device: !!bool x", "device: !!float ''"]
)
def test_a_value_that_does_not_match_its_tag(tmp_path: Path, text: str) -> None:
    assert "has a value that does not match its tag" in load_error(tmp_path, text)


def test_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_bytes("\ufeffdevice: shelf\n".encode())
    assert load_recipe(tmp_path / "mine.yaml").device == "shelf"


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "mine.yaml").open("wb") as file:
        file.truncate(10**10)
    with pytest.raises(UserError, match=r"mine\.yaml is too large to be a recipe"):
        load_recipe(tmp_path / "mine.yaml")


def test_the_suffix_of_a_recipe_may_be_in_capitals(tmp_path: Path) -> None:
    (tmp_path / "G.YAML").write_text("device: x")
    assert load_recipe(tmp_path / "G.YAML").device == "x"


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").mkdir()
    with pytest.raises(UserError, match=r"mine\.yaml is an empty folder\. Give a YAML file"):
        load_recipe(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("calibration: {steps: 1e8}", "calibration.steps = '1e8': it must be a whole number."),
        ("calibration: {steps: 100000000}", "calibration.steps = 100000000: it must be at most 10000."),
        ("calibration: {size: [100000, 100000]}", "calibration.size = [100000, 100000]: write native, or [H, W]"),
        ("rknn: {size: [0, 64]}", "rknn.size = [0, 64]: write native, or [H, W]"),
        ("presets: {fast: {size: big}}", "presets.fast.size = 'big': write native, or [H, W]"),
        ("calibration: {guidance: .inf}", "calibration.guidance = inf: it must be a finite number."),
        ("rknn: {memory: .nan}", "rknn.memory = nan: it must be a finite number."),
        ("rknn: {build_memory: 1.0e+308}", "rknn.build_memory = 1e+308: it must be at most"),
        ("quantize: {scheme: {max_output_error: .inf}}", "max_output_error = inf: it must be a finite number."),
        ("evaluation: {gates: {psnr_min: .inf}}", "evaluation.gates.psnr_min = inf: write a number such as 2"),
        ("evaluation: {gates: {psnr_min: .nan}}", "evaluation.gates.psnr_min = nan: write a number such as 2"),
        ("evaluation: {gates: {clip_t_drop: '0,5%'}}", "evaluation.gates.clip_t_drop = '0,5%': write a number"),
        ("evaluation: {gates: [psnr_min]}", "evaluation.gates = [psnr_min]: it must be a mapping of keys"),
        ("evaluation: {gates: {psnr_min: true, ssim_min: no}}", "evaluation: gates cannot be true or false."),
        (f"calibration: {{count: 0x{'f' * 5000}}}", "calibration.count = 0xfff"),
        (f"export: {{opset: 0x{'f' * 5000}}}", "it must be at most 1000."),
        (f"evaluation: {{gates: {{psnr_min: 0x{'f' * 5000}}}}}", "write a number such as 2"),
        ("calibration: {count: yes}", "calibration: count cannot be true or false."),
        ("export: {sizes: [[64, true]]}", "export: sizes cannot be true or false."),
        ("export: {max_prompt_tokens: 10000000}", "export.max_prompt_tokens = 10000000: it must be at most 32768."),
        ("quantize: 3", "quantize = 3: it must be a mapping of keys to values."),
        ("quantize: {components: transformer}", "quantize.components = 'transformer': it must be a list."),
        ("model: [a, [b], {c: d}, 1, 2]", "model = [a, [...], {...}, 1, ...]: it must be text."),
        ("model: null", "model = null: it must be text."),
    ],
)
def test_a_value_is_shown_as_in_yaml_with_what_it_must_be(tmp_path: Path, text: str, message: str) -> None:
    assert message in load_error(tmp_path, f"device: x\n{text}")


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
KEYS = st.sampled_from(
    [*Recipe.model_fields, *QuantizationSettings.model_fields, *GenerationSettings.model_fields, "x"]
)
CONTENTS = st.recursive(
    SCALARS, lambda children: st.lists(children, max_size=3) | st.dictionaries(KEYS, children, max_size=3), max_leaves=6
)


def find_mistake(path: Path) -> str:
    """The message that rejects a recipe, or an empty string."""
    try:
        load_recipe(path)
    except UserError as error:
        return str(error)
    return ""


FUZZ = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode) | CONTENTS.map(yaml.safe_dump).map(str.encode))
def test_any_file_loads_or_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine.yaml").write_bytes(content)
    message = find_mistake(tmp_path / "mine.yaml")
    assert not message or ("mine.yaml" in message and len(message) < 1000)


@FUZZ
@given(st.dictionaries(KEYS, CONTENTS, max_size=5))
def test_any_mapping_loads_or_is_a_sentence(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"device": "x"} | content), "utf-8")
    message = find_mistake(tmp_path / "mine.yaml")
    assert not message or "mine.yaml" in message


@pytest.mark.parametrize("number", ["030", "-012", "1:30", "1:30.5", "0_7"])
def test_a_number_that_yaml_reads_as_another_one_is_rejected(tmp_path: Path, number: str) -> None:
    message = load_error(tmp_path, f"device: x\nevaluation:\n  gates: {{psnr_min: {number}}}")
    assert f"line 3 is not readable YAML: the number {number} is ambiguous: write it in decimal" in message


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("1_000", 1000), ("0x10", 16), ("0.5", 0.5), ("1.0e+1", 10)])
def test_numbers_are_read_as_they_are_written(tmp_path: Path, text: str, number: float) -> None:
    recipe = load_recipe(write_recipe(tmp_path, f"device: x\nevaluation: {{gates: {{psnr_min: {text}}}}}"))
    assert recipe.evaluation.gates == {"psnr_min": number}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("device: x\n---\ndevice: y\n", "it has a second document, after '---'"),
        (
            "device: !!python/name:os.system x\n",
            "it has the tag 'tag:yaml.org,2002:python/name:os.system', and tags are not",
        ),
    ],
)
def test_yaml_that_is_no_single_plain_document(text: str, reason: str, tmp_path: Path) -> None:
    assert reason in load_error(tmp_path, text)
