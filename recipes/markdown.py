"""Writes the reference of recipes in docs/recipes.md from the schema's descriptions: `make docs-reference`."""

from __future__ import annotations

from pathlib import Path

from ..common.markdown_table import render_table
from .reference import KeyDescription, describe_schema
from .schema import Recipe

PAGE = Path(__file__).parents[1] / "docs" / "recipes.md"
BEGIN, END = "<!-- recipe reference: begin -->", "<!-- recipe reference: end -->"


def render_reference() -> str:
    """All keys of a recipe as Markdown: a table for each section, in the order of the schema."""
    sections: dict[str, list[KeyDescription]] = {"": []}
    titles: dict[str, str] = {"": ""}
    for entry in describe_schema(Recipe):
        section, _, _ = entry.key.rpartition(".")
        if entry.type == "section":
            sections[_path(entry.key)], titles[_path(entry.key)] = [], entry.description
        else:
            sections[section].append(entry)
    return "\n\n".join(_render_section(path, titles[path], entries) for path, entries in sections.items())


def update_page(text: str) -> str:
    """The page with its reference between the two markers replaced."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{render_reference()}\n\n{END}{after}"


def _path(key: str) -> str:
    """Where the keys of a section are: in a mapping of sections, below a name that the user chooses."""
    named = f"{key}.NAME"
    return named if any(entry.key.startswith(f"{named}.") for entry in describe_schema()) else key


def _render_section(path: str, description: str, entries: list[KeyDescription]) -> str:
    title = f"### `{path}`" if path else "### Top level"
    rows = [
        [f"`{entry.key.rpartition('.')[2]}`", _cell(entry.type), _default(entry), _cell(entry.description)]
        for entry in entries
    ]
    table = render_table(("key", "values", "default", "meaning"), rows)
    return "\n\n".join(filter(None, [title, description, table]))


def _default(entry: KeyDescription) -> str:
    return "required" if entry.default is None else f"`{entry.default}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(update_page(PAGE.read_text("utf-8")), "utf-8")
