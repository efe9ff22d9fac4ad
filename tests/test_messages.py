"""Every message for users, read from the source: it names a file, an option or a value, and one thing to do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import edgepress

ROOT = Path(edgepress.__file__).resolve().parent
OUTSIDE = {"tests", "build", "dist", "artifacts", "docs", "findings", "view"}
VALUE = "\N{WHITE SQUARE}"  # stands for a value in a message
# What a user is told to do begins a sentence, or follows a comma, a semicolon or "or".
ADVICE = re.compile(
    r"(?:^|[.:;,(] |\b(?:or|and|then) )(?:"
    r"Add|Allow|Ask|Change|Check|Choose|Close|Compare|Convert|Copy|Correct|Create|Delete|Download|End|Evaluate|Export|"
    r"Free|Generate|Give|Install|Keep|Leave out|Lower|Make|Move|Name|Pass|Put|Quantize|Raise|Remove|Rename|Replace|Run|"
    r"Save|See|Set|Split|Start|Take|Try|Update|Upgrade|Use|Wait|Write)\b|did you mean|known: |it must be|must be",
    re.IGNORECASE,
)
NAMED = re.compile(rf"{VALUE}|--[a-z]|'[^']+'|`[^`]+`|\b[a-z_]+\.[a-z_]+\b|\b[a-z_]+: ")


@cache
def sources() -> tuple[Path, ...]:
    """The modules of the package."""
    paths = (path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
    return tuple(sorted(path for path in paths if path.parts[0] not in OUTSIDE and not path.parts[0].startswith(".")))


def text_of(node: ast.expr) -> str | None:
    """The text of a literal with `VALUE` for each value; None of anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) or "" for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return VALUE
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = text_of(node.left), text_of(node.right)
        return "".join(part if part is not None else VALUE for part in parts)
    return None


def messages() -> Iterator[tuple[str, ast.expr, str]]:
    """Place, expression and text of every message that is a literal."""
    for path in sources():
        for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "UserError":
                text = text_of(node.args[0])
                if text is not None:
                    yield f"{path}:{node.lineno}", node.args[0], text


def test_messages_are_found() -> None:
    found = {place.split(":")[0] for place, _, _ in messages()}
    assert {"recipes/loader.py", "storage/checkpoint.py", "runtime/pipeline.py"} <= found
    assert sum(1 for _ in messages()) > 150


def test_no_message_shows_a_python_object() -> None:
    """`!r` shows quotes, backslashes and class names of Python; a text is put in quotes instead."""
    shown = [
        place
        for place, expression, _ in messages()
        for node in ast.walk(expression)
        if isinstance(node, ast.FormattedValue) and node.conversion == ord("r")
    ]
    assert shown == []


def test_every_message_names_a_file_an_option_or_a_value() -> None:
    assert [f"{place}: {text}" for place, _, text in messages() if not NAMED.search(text)] == []


def test_every_message_says_what_to_do() -> None:
    advising = [f"{place}: {text}" for place, _, text in messages() if not ADVICE.search(text) and text[-1] != VALUE]
    assert advising == []


def test_every_message_is_whole_sentences() -> None:
    """It begins with a capital letter or a value, and ends with a period, a question mark or a value."""
    pattern = re.compile(rf"^[A-Z{VALUE}`'\-@].*[.?\"`){VALUE}]$", re.DOTALL)
    assert [f"{place}: {text}" for place, _, text in messages() if not pattern.match(text) and text != VALUE] == []


@pytest.mark.parametrize(
    ("text", "is_helpful"),
    [
        (f"{VALUE} is missing. Download the model again.", True),
        (f"Invalid size {VALUE}: it must be at least 64.", True),
        (f"{VALUE} is corrupt.", False),
    ],
)
def test_advice_is_recognized(text: str, is_helpful: bool) -> None:
    assert bool(ADVICE.search(text)) == is_helpful
