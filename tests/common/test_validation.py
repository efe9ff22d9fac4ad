"""What pydantic rejects, said in plain English; every message is that of a real model."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, create_model, model_validator

import edgepress
from edgepress.common.validation import PATTERNS, describe_value_error, explain_value, format_value


class Section(BaseModel):
    first: int = 0
    second: int = 0

    @model_validator(mode="after")
    def _check_order(self) -> Section:
        if self.first > self.second:
            raise ValueError("First must not be above second")
        return self


def explain(type_: Any, value: Any) -> str:
    model: Any = create_model("Model", __config__=ConfigDict(strict=False), key=(type_, ...))
    with pytest.raises(ValidationError) as caught:
        model.model_validate({"key": value})
    return explain_value(caught.value.errors()[0])


@pytest.mark.parametrize(
    ("type_", "value", "message"),
    [
        (Annotated[float, Field(gt=0)], 0, "key = 0: it must be greater than 0"),
        (Annotated[int, Field(ge=2)], 1, "key = 1: it must be at least 2"),
        (Annotated[float, Field(lt=1)], 1.5, "key = 1.5: it must be less than 1"),
        (Annotated[int, Field(le=8)], 9, "key = 9: it must be at most 8"),
        (Annotated[int, Field(multiple_of=32)], 48, "key = 48: it must be a multiple of 32"),
        (FiniteFloat, float("inf"), "key = inf: it must be a finite number"),
        (Literal["fp16", "fp32"], "int3", "key = 'int3': it must be 'fp16' or 'fp32'"),
        (Annotated[str, Field(min_length=1)], "", "key = '': it must not be empty"),
        (int, "many", "key = 'many': it must be a whole number"),
        (int, 1.5, "key = 1.5: it must be a whole number"),
        (int, None, "key = null: it must be a whole number"),
        (float, [1], "key = [1]: it must be a number"),
        (bool, "maybe", "key = 'maybe': it must be true or false"),
        (str, True, "key = true: it must be text"),
        (list[int], {"a": 1}, "key = {...}: it must be a list"),
        (tuple[int, int], {}, "key = {}: it must be a list"),
        (tuple[int, int], [1], "key: entry 2 is missing"),
        (dict[str, int], [], "key = []: it must be a mapping of keys to values"),
        (Section, 3, "key = 3: it must be a mapping of keys to values"),
        (Section, {"first": "x"}, "key.first = 'x': it must be a whole number"),
        (Section, {"first": 2}, "key: first must not be above second"),
        (list[int], [1, "x"], "key.1 = 'x': it must be a whole number"),
        (Annotated[list[int], Field(min_length=2)], [1], "key = [1]: it must have at least 2 entries"),
        (Annotated[list[int], Field(max_length=1)], [1, 2], "key = [1, 2]: it must have at most 1 entries"),
        (Annotated[str, Field(pattern="^[0-9a-f]{64}$")], "xyz", "key = 'xyz': it must be 64 hexadecimal digits"),
        (Annotated[str, Field(pattern="^unknown$")], "x", "key = 'x': it has another form than it must have"),
    ],
)
def test_a_value_is_named_with_what_it_must_be(type_: Any, value: Any, message: str) -> None:
    assert explain(type_, value) == message


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (False, "false"),
        (0.1, "0.1"),
        ("a", "'a'"),
        ([1, "b", None, True, 5], "[1, b, null, true, ...]"),
        ([[64, 64], [1] * 5, [[1]], {"a": 1}], "[[64, 64], [...], [...], {...}]"),
        ("x" * 61, f"'{'x' * 60}…'"),
    ],
)
def test_values_are_written_as_in_yaml(value: Any, text: str) -> None:
    assert format_value(value) == text


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: {}["size"], "the key 'size' is missing"),
        (lambda: int(None), "a value is missing or of a wrong type"),  # type: ignore[call-overload]
        (lambda: int("x"), "a value is missing or of a wrong type"),
        (lambda: [][0], "a value is missing or of a wrong type"),
        (lambda: None.shape, "a value is missing or of a wrong type"),  # type: ignore[attr-defined]
    ],
)
def test_errors_of_python_are_said_in_plain_words(make: Callable[[], object], text: str) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011
        make()
    assert describe_value_error(raised.value) == text
    assert describe_value_error(ValueError("the size is 0")) == "a value is missing or invalid (the size is 0)"


def test_a_list_that_holds_itself_is_no_endless_message() -> None:
    endless: list[Any] = []
    endless.append(endless)
    assert format_value(endless) == "[[...]]"


@pytest.mark.parametrize(
    ("value", "text"),
    [("a\nb", r"'a\nb'"), ("\x1b[2J", r"'\x1b[2J'"), ("红 café", "'红 café'"), (["a\n"], r"[a\n]"), ("x" * 61, None)],
)
def test_a_value_takes_one_line_and_cannot_steer_a_terminal(value: object, text: str | None) -> None:
    assert format_value(value) == (text or f"'{'x' * 60}…'")


def test_every_pattern_of_a_schema_is_explained() -> None:
    """Otherwise messages would show the pattern."""
    root = Path(edgepress.__file__).resolve().parent
    rooms = ("recipes", "prompts", "evaluate", "storage", "runtime", "serving")
    trees = [ast.parse(file.read_text("utf-8")) for room in rooms for file in (root / room).rglob("*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    patterns = {
        ast.literal_eval(keyword.value)
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "Field"
        for keyword in call.keywords
        if keyword.arg == "pattern"
    }
    assert patterns
    assert patterns == set(PATTERNS)
