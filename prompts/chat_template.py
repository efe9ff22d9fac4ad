"""Chat templates: compiled as transformers does it, with the tag, functions and filter that it adds to Jinja."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..common.errors import UserError


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
    environment = ImmutableSandboxedEnvironment(
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
