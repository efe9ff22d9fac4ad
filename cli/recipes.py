"""`edgepress recipes`: lists the recipes and explains one."""

from __future__ import annotations

import shutil
import textwrap
from typing import Any

import click

from ..recipes.loader import load_recipe, recipe_names
from ..recipes.reference import explain_recipe, resolve_recipe
from ..recipes.schema import Recipe
from .command import Command, Group
from .console import print_json
from .options import json_option, verbosity_options
from .parameter_types import RecipeName

MAX_WIDTH = 100  # columns


@click.group(cls=Group, invoke_without_command=True)
@json_option
@verbosity_options
@click.pass_context
def recipes(context: click.Context, as_json: bool) -> None:
    """List the recipes; `recipes show NAME` explains one."""
    if context.invoked_subcommand:
        recipes.require_no_options(context)
        return
    rows = [_summarize(name, load_recipe(name)) for name in recipe_names()]
    if as_json:
        print_json(rows)
        return
    width = max(len(row["name"]) for row in rows) + 2
    for row in rows:
        exports = f"ONNX {row['onnx']}" + (f"; RKNN {row['rknn']}" if row["rknn"] else "")
        text = f"{row['description']}. Model: {row['model']}; {exports}."
        click.echo("\n".join(textwrap.wrap(f"{row['name']:{width}}{text}", _width(), subsequent_indent=" " * width)))


@recipes.command(cls=Command)
@click.argument("name", type=RecipeName(), metavar="NAME|FILE")
@json_option
@verbosity_options
def show(name: str, as_json: bool) -> None:
    """Show a recipe with all its defaults, each key explained."""
    recipe = load_recipe(name)
    if as_json:
        print_json(resolve_recipe(recipe))
        return
    shown: set[str] = set()
    for description, value in explain_recipe(recipe):
        *parents, key = description.key.split(".")
        for depth in range(1, len(parents) + 1):  # names that the user chose have no explanation of their own
            if ".".join(parents[:depth]) not in shown:
                shown.add(".".join(parents[:depth]))
                click.echo(f"{'  ' * (depth - 1)}{parents[depth - 1]}:")
        shown.add(description.key)
        indent = "  " * len(parents)
        for line in textwrap.wrap(description.description, _width() - len(indent) - 2):
            click.secho(f"{indent}# {line}", dim=True)
        click.echo(f"{indent}{key}:" + ("" if value is None else f" {value}"))


def _width() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, MAX_WIDTH)


def _summarize(name: str, recipe: Recipe) -> dict[str, Any]:
    rknn = recipe.rknn
    return {
        "name": name,
        "device": recipe.device,
        "description": recipe.description,
        "model": recipe.model,
        "onnx": f"{recipe.export.precision}, {recipe.export.format}",
        "rknn": f"{rknn.target}, {rknn.precision}" if rknn else None,
    }
