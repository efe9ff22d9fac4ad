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
# Advice to the user begins a sentence, or follows a comma, a semicolon or "or".
ADVICE = re.compile(
    rf"(?:^|[.:;,({VALUE}] |\b(?:or|and|then|otherwise) )(?:"
    r"Add|Allow|Ask|Change|Check|Choose|Close|Compare|Convert|Copy|Correct|Create|Delete|Download|End|Evaluate|Export|"
    r"Free|Generate|Give|Install|Keep|Leave|Lower|Make|Move|Name|Pass|Put|Quantize|Quote|Raise|Remove|Rename|Replace|Run|"
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
    if isinstance(node, ast.FormattedValue):  # a constant that is named so holds advice
        return "Use it" if isinstance(node.value, ast.Name) and node.value.id.endswith("_HINT") else VALUE
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = text_of(node.left), text_of(node.right)
        return "".join(part if part is not None else VALUE for part in parts)
    return None


@cache
def messages() -> tuple[tuple[str, str], ...]:
    """Place and text of every message that is a literal."""
    return tuple(find_messages())


def find_messages() -> Iterator[tuple[str, str]]:
    for path in sources():
        for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "UserError":
                text = text_of(node.args[0])
                if text is not None:
                    yield f"{path}:{node.lineno}", text


def test_messages_are_found() -> None:
    modules = {place.split(":")[0] for place, _ in messages()}
    assert {"recipes/loader.py", "storage/checkpoint.py", "runtime/pipeline.py"} <= modules
    assert len(messages()) > 150


def test_every_message_names_a_file_an_option_or_a_value() -> None:
    assert [f"{place}: {text}" for place, text in messages() if not NAMED.search(text)] == []


def test_every_message_says_what_to_do() -> None:
    silent = [
        f"{place}: {text}"
        for place, text in messages()
        if not ADVICE.search(text) and not text.endswith(VALUE) and text != f"{VALUE}."  # a value that has advice
    ]
    assert silent == []


def test_every_message_is_whole_sentences() -> None:
    """It ends with a period, a question mark, a command to copy, or a value that is a sentence itself."""
    assert [f"{place}: {text}" for place, text in messages() if not re.search(rf"[.?'{VALUE}]$", text)] == []


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
