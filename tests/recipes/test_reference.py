"""The reference of recipe keys, for the documentation and the command line."""

from __future__ import annotations

import yaml

from edgepress.recipes.loader import load_recipe, recipe_names
from edgepress.recipes.reference import describe_schema, explain_recipe, resolve_recipe, to_yaml
from edgepress.recipes.schema import Recipe

DESCRIPTIONS = {entry.key: entry for entry in describe_schema()}


def test_every_key_has_a_description() -> None:
    assert [key for key, entry in DESCRIPTIONS.items() if not entry.description.endswith(".")] == []


def test_types_and_defaults_are_in_words() -> None:
    keys = ("device", "quantize.extra_schemes.NAME.bits", "export.sizes", "rknn.size", "rknn.tile", "rknn.memory")
    assert {key: (DESCRIPTIONS[key].type, DESCRIPTIONS[key].default) for key in keys} == {
        "device": ("string", None),
        "quantize.extra_schemes.NAME.bits": ("4 | 8", "4"),
        "export.sizes": ("list of [height, width]", "[]"),
        "rknn.size": ("native | [height, width]", "native"),
        "rknn.tile": ("integer, at least 64, a multiple of 16", "null"),
        "rknn.memory": ("number, greater than 0", "8"),
    }
    assert (
        DESCRIPTIONS["quantize.steps"].type
        == "list of (scale | clip | range_search | gptq | scale_refit | reround | choose)"
    )
    assert DESCRIPTIONS["evaluation.gates"].type == "mapping of names to number, at least 0 | string"
    assert DESCRIPTIONS["quantize"].type == "section"


def test_a_default_that_is_written_into_a_recipe_changes_nothing() -> None:
    content = {"device": "x"}
    for key, entry in DESCRIPTIONS.items():
        if entry.default is not None and "NAME" not in key:
            *sections, name = key.split(".")
            section = content
            for part in sections:
                section = section.setdefault(part, {})  # type: ignore[assignment, arg-type]
            section[name] = yaml.safe_load(entry.default)
    del content["rknn"], content["hardware"]
    assert Recipe.model_validate(content) == Recipe(device="x")


def test_every_shipped_recipe_is_explained() -> None:
    for name in recipe_names():
        recipe = load_recipe(name)
        explained = {entry.key: value for entry, value in explain_recipe(recipe)}
        assert explained["device"] == name
        assert ("rknn.target" in explained) == (recipe.rknn is not None)
        for scheme, settings in recipe.quantize.extra_schemes.items():
            assert explained[f"quantize.extra_schemes.{scheme}.group_size"] == str(settings.group_size)


def test_a_resolved_recipe_has_all_defaults_and_the_steps_of_its_method() -> None:
    resolved = resolve_recipe(load_recipe("pi5"))
    assert resolved["quantize"]["steps"] == ["gptq"]
    assert resolved["export"]["max_prompt_tokens"] == 128
    assert Recipe.model_validate(resolved).export == load_recipe("pi5").export


def test_values_are_one_line_of_yaml() -> None:
    for value in ("demo", "", "true", 0.5, None, True, ("a", "b"), {"psnr_min": 42, "clip_t_drop": "0.5%"}, "x" * 300):
        text = to_yaml(value)
        assert "\n" not in text
        assert yaml.safe_load(text) == (list(value) if isinstance(value, tuple) else value)
