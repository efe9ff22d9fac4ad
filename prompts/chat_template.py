"""Chat templates: compiled as transformers does it, with the tag, functions and filter that it adds to Jinja."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import wraps
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..common.errors import UserError

MAX_RANGE = 100_000  # numbers that all ranges of a template may have together, as Jinja's sandbox allows one
SIZED_FILTERS = ("center", "indent", "format", "truncate", "wordwrap")  # whose results numbers make long
MAX_POWER = 1000  # base and exponent
MAX_LENGTH = 1_000_000  # characters or entries that an operator of a template may make


class LimitedTemplate(Template):
    """A template whose ranges are counted afresh each time it is rendered."""

    def render(self, *args: Any, **kwargs: Any) -> str:
        """Returns the text."""
        environment = self.environment
        assert isinstance(environment, LimitedEnvironment)
        environment.num_left = MAX_RANGE
        return super().render(*args, **kwargs)


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox for templates of strangers, which also ends those that loop or grow without end."""

    intercepted_binops = frozenset(["*", "**", "%"])
    template_class = LimitedTemplate

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.num_left = MAX_RANGE
        self.globals["range"] = self._range
        for name in SIZED_FILTERS:
            self.filters[name] = _limit_numbers(self.filters[name])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Multiplies, unless the result is too long."""
        lengths = [len(value) for value in (left, right) if isinstance(value, str | list | tuple)]
        numbers = [abs(value) for value in (left, right) if isinstance(value, int | float)]
        is_power = operator == "**" and numbers and max(numbers) > MAX_POWER
        if operator == "%" and isinstance(left, str):
            _require_short_format(left)
        if is_power or (lengths and numbers and lengths[0] * numbers[0] > MAX_LENGTH):
            raise TemplateError("it makes a value that is too long")
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  as Jinja names them
        """Calls what a template calls, unless it is given a number from which a long text could be made."""
        if __obj is not __self.globals["range"]:
            _require_small([*args, *kwargs.values()])
        return super().call(__context, __obj, *args, **kwargs)

    def _range(self, *arguments: int) -> range:
        numbers = range(*arguments)
        self.num_left -= len(numbers)
        if self.num_left < 0:
            raise TemplateError(f"its loops have more than {MAX_RANGE} steps")
        return numbers


def _require_small(values: Iterable[Any]) -> None:
    if any(isinstance(value, int | float) and abs(value) > MAX_LENGTH for value in values):
        raise TemplateError("it makes a value that is too long")


def _require_short_format(text: str) -> None:
    if any(int(digits) > MAX_LENGTH for digits in re.findall(r"\d{1,4000}", text)):
        raise TemplateError("it makes a value that is too long")


def _limit_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        _require_small([*args, *kwargs.values()])
        for value in args:
            if isinstance(value, str) and function.__name__ == "do_format":
                _require_short_format(value)
        return function(*args, **kwargs)

    return call


class GenerationTag(Extension):
    """`{% generation %}`: marks what an assistant says, for training; its content is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012  as Jinja declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """Returns what is between the tag and its end."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def compile_chat_template(text: str, where: object, advice: str) -> Template:
    """Compiles a chat template.

    Args:
        text: The template.
        where: Its file, for messages.
        advice: A sentence that says what to do about an invalid one.

    Raises:
        UserError: It is not a template.
    """
    environment = LimitedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", GenerationTag]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_template_error
    environment.globals["strftime_now"] = _format_now
    try:
        return environment.from_string(text)
    except (TemplateError, RecursionError) as error:
        reason = getattr(error, "message", None) or "it is nested too deeply"
        raise UserError(f"{where} is not a chat template ({reason}). {advice}") from error


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: Sequence[str] | None = None,
    sort_keys: bool = False,
) -> str:
    marks: Any = separators
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=marks, sort_keys=sort_keys)


def _raise_template_error(reason: str) -> NoReturn:
    raise TemplateError(reason)


def _format_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)  # local time, as in transformers
