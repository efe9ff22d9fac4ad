"""`edgepress recipes`: what is listed, and what is shown, against the recipes themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from edgepress.cli.main import main
from edgepress.recipes.loader import load_recipe, recipe_names
from edgepress.recipes.schema import Recipe


def run(*arguments: str, columns: int = 100) -> Result:
    result = CliRunner().invoke(main, ["recipes", *arguments], env={"COLUMNS": str(columns)})
    assert result.exit_code == 0, result.output
    return result


def test_every_recipe_is_listed_with_its_exports() -> None:
    rows = {row["name"]: row for row in json.loads(run("--json").stdout)}
    assert list(rows) == recipe_names()
    for name, row in rows.items():
        recipe = load_recipe(name)
        assert (row["device"], row["description"], row["model"]) == (recipe.device, recipe.description, recipe.model)
        assert (row["rknn"] is not None) == (recipe.rknn is not None)
    text = run().stdout
    assert [line.split()[0] for line in text.splitlines() if not line.startswith(" ")] == recipe_names()
    assert all("".join(row["description"].split()) in "".join(text.split()) for row in rows.values())


@pytest.mark.parametrize(("columns", "limit"), [(60, 60), (100, 100), (300, 100)])
def test_lines_fit_the_terminal_and_are_never_too_long_to_read(columns: int, limit: int) -> None:
    lines = run(columns=columns).stdout.splitlines()
    assert limit - 20 < max(map(len, lines)) <= limit
    explanations = [line for line in run("show", "rk3588", columns=columns).stdout.splitlines() if "# " in line]
    assert max(map(len, explanations)) <= limit


@pytest.mark.slow
def test_a_recipe_is_shown_whole_and_explained() -> None:
    """What is shown is YAML that says the same as the recipe, once its explanations are comments."""
    for name in recipe_names():
        shown = run("show", name).stdout
        assert Recipe.model_validate(yaml.safe_load(shown)) == load_recipe(name)
        assert shown.count("# ") > 50


def test_a_file_is_shown_with_the_defaults_that_it_leaves_out(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("device: board\nquantize: {scheme: {group_size: 64}}\n")
    shown = yaml.safe_load(run("show", str(file)).stdout)
    assert (shown["device"], shown["quantize"]["scheme"]["group_size"]) == ("board", 64)
    assert Recipe.model_validate(shown) == load_recipe(str(file))
    assert json.loads(run("show", str(file), "--json").stdout)["device"] == "board"
