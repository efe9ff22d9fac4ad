"""Turns a prompt into token ids: the pipeline's chat template, then its tokenizer, cut at the length that it reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ..common.errors import UserError

MAX_SHOWN_CHARACTERS = 60  # characters of what is cut


@dataclass(frozen=True)
class TokenizedPrompt:
    """Token ids (tokens,), and a sentence that says what of the text is not read, or nothing."""

    ids: NDArray[np.int64]
    truncation_notice: str = ""


class PromptTokenizer:
    """The tokenizer folder of an export: tokenizer.json, chat_template.jinja and tokenizer_config.json.

    Args:
        folder: of these files.
        variables: what the pipeline gives the chat template besides the message.
        longest: tokens that are read, the template's own included.

    Raises:
        UserError: a file is missing or damaged.
    """

    def __init__(self, folder: Path, template_kwargs: Mapping[str, Any], max_tokens: int) -> None:
        self._tokenizer = _load_tokenizer(folder / "tokenizer.json")
        self._template = _load_chat_template(folder / "chat_template.jinja")
        self._template_kwargs = {**_read_special_tokens(folder / "tokenizer_config.json"), **template_kwargs}
        self._max_tokens = max_tokens

    def tokenize(self, text: str) -> TokenizedPrompt:
        """The ids of a prompt.

        Raises:
            UserError: the prompt is no Unicode text, or the chat template refuses it.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError("The prompt is not valid UTF-8; check the terminal's encoding.") from error
        rendered = self._render(text)
        encoding = self._tokenizer.encode(rendered)
        ids = np.array(encoding.ids[: self._max_tokens], np.int64)
        if len(encoding.ids) <= self._max_tokens:
            return TokenizedPrompt(ids)
        begin = encoding.offsets[self._max_tokens][0] - rendered.find(text)
        return TokenizedPrompt(ids, _describe_truncation(text[max(begin, 0) :], len(encoding.ids), self._max_tokens))

    def _render(self, text: str) -> str:
        messages = [{"role": "user", "content": text}]
        try:
            return self._template.render(
                messages=messages, tools=None, documents=None, add_generation_prompt=True, **self._template_kwargs
            )
        except TemplateError as error:
            raise UserError(f"The chat template refuses the prompt: {error}") from error


def _describe_truncation(cut: str, tokens: int, longest: int) -> str:
    what = "nothing but the end of the chat template"
    if cut:
        what = f"all from {cut[:MAX_SHOWN_CHARACTERS]!r}{'…' if len(cut) > MAX_SHOWN_CHARACTERS else ''} on"
    return f"The prompt has {tokens} tokens, of which {longest} are read; what is cut is {what}."


def _load_chat_template(path: Path) -> Template:
    content = _read_text(path)
    try:
        return _make_environment().from_string(content)
    except TemplateError as error:
        raise UserError(f"{path} is no chat template ({error.message}); export the artifact again.") from error


def _make_environment() -> ImmutableSandboxedEnvironment:
    """Jinja as transformers sets it up for chat templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = _raise_template_error
    return environment


def _raise_template_error(reason: str) -> NoReturn:
    raise TemplateError(reason)


def _load_tokenizer(path: Path) -> Tokenizer:
    content = _read_text(path)
    try:
        tokenizer = Tokenizer.from_str(content)
    except Exception as error:  # tokenizers has no class of its own for what is wrong with a file
        raise UserError(f"{path} is no tokenizer ({error}); export the artifact again.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _read_special_tokens(path: Path) -> dict[str, str]:
    """bos_token, eos_token and the like, which a chat template may name."""
    try:
        config = json.loads(_read_text(path))
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); export the artifact again.") from error
    return {key: value for key, value in config.items() if key.endswith("_token") and isinstance(value, str)}


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); export the artifact again.") from error
