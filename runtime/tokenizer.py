"""Turns a prompt into token ids: applies the template, tokenizes, and truncates or pads to the length that is read.

All of it as transformers does: a long prompt is truncated on the side that tokenizer_config.json names, and tokens that
tokenizer.json adds before and after a text stay. Settings such as add_eos_token are ignored, as transformers ignores
them where there is a tokenizer.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jinja2 import Template, TemplateError
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ..common.errors import UserError, summarize_error
from ..models.base.prompt_tokens import PromptFormat
from ..prompts.chat_template import compile_chat_template
from ..prompts.truncation import Side, describe_truncation, find_ignored_text
from ..storage.strict_json import parse_strict_json

# What the code of a template raises: Jinja lets errors of expressions, such as a sum of a text and a number, through.
TEMPLATE_ERRORS = (TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True)
class TokenizedPrompt:
    """A tokenized prompt.

    Attributes:
        ids: Token ids, (tokens,).
        truncation_notice: A sentence that says which text was truncated; empty if none was.
        num_pads: How many of the last ids are pads.
    """

    ids: NDArray[np.int64]
    truncation_notice: str = ""
    num_pads: int = 0


class PromptTokenizer:
    """The tokenizer of an exported pipeline.

    Args:
        folder: Folder with tokenizer.json and tokenizer_config.json, and chat_template.jinja if prompts are messages.
        prompt_format: How the pipeline turns prompts into tokens.

    Raises:
        UserError: A file is missing or corrupt.
    """

    def __init__(self, folder: Path, prompt_format: PromptFormat) -> None:
        config = _read_config(folder / "tokenizer_config.json")
        self._tokenizer, self._side, padding_side = _load_tokenizer(folder / "tokenizer.json", config)
        if prompt_format.is_padded and padding_side != "right":
            raise UserError(
                f"{folder} pads prompts on the left, which no exported graph does. Set padding_side to right in its "
                "tokenizer_config.json if the model reads prompts so, or generate images with diffusers."
            )
        self._format, self._max_tokens = prompt_format, prompt_format.max_tokens
        special = _select_special_tokens(config)
        kwargs = prompt_format.chat_template_kwargs
        self._template = None if kwargs is None else _load_chat_template(folder / "chat_template.jinja")
        self._template_kwargs = {**special, **(kwargs or {})}
        self._pad_id = self._find_pad_id(folder, special) if prompt_format.is_padded else 0

    def _find_pad_id(self, folder: Path, special: Mapping[str, str]) -> int:
        token = special.get("pad_token", "")
        number = self._tokenizer.token_to_id(token)
        if number is None:
            raise UserError(f"{folder} has no pad token, with which prompts are padded. Export the artifact again.")
        return int(number)

    def tokenize(self, text: str) -> TokenizedPrompt:
        """Tokenizes a prompt.

        Raises:
            UserError: The prompt is not valid Unicode, or the chat template rejects it.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            shown = text.encode("utf-8", "replace").decode()
            raise UserError(f"The prompt '{shown}' is not valid UTF-8. Check the encoding of the terminal.") from error
        rendered = self._render(text)
        whole = self._tokenizer.encode(rendered)
        if len(whole.ids) <= self._max_tokens:
            num_pads = self._max_tokens - len(whole.ids) if self._format.is_padded else 0
            return TokenizedPrompt(np.array(whole.ids + num_pads * [self._pad_id], np.int64), num_pads=num_pads)
        self._tokenizer.enable_truncation(self._max_tokens, direction=self._side)
        ids = np.array(self._tokenizer.encode(rendered).ids, np.int64)
        self._tokenizer.no_truncation()
        ignored = find_ignored_text(
            text, rendered, whole.offsets, whole.special_tokens_mask, self._max_tokens, self._side
        )
        return TokenizedPrompt(ids, describe_truncation(text, len(whole.ids), self._max_tokens, ignored, self._side))

    def _render(self, text: str) -> str:
        if self._template is None:
            return self._format.text.replace("{}", text)
        messages = [{"role": "user", "content": text}]
        try:
            return self._template.render(
                messages=messages, tools=None, documents=None, add_generation_prompt=True, **self._template_kwargs
            )
        except TEMPLATE_ERRORS as error:
            raise UserError(f"The chat template rejects the prompt: {error}. Export the artifact again.") from error


def _load_chat_template(path: Path) -> Template:
    return compile_chat_template(_read_text(path), path, "Export the artifact again.")


def _load_tokenizer(path: Path, config: Mapping[str, Any]) -> tuple[Tokenizer, Side, Side]:
    """Loads a tokenizer, and says on which side it truncates and on which it pads."""
    content = _read_text(path)
    try:
        tokenizer = Tokenizer.from_str(content)
    except Exception as error:  # tokenizers raises plain Exception for a corrupt file
        raise UserError(f"{path} is not a tokenizer ({summarize_error(error)}). Export the artifact again.") from error
    side: Side = config.get("truncation_side") or (tokenizer.truncation or {}).get("direction", "right")
    padding_side: Side = config.get("padding_side") or (tokenizer.padding or {}).get("direction", "right")
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, side, padding_side


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = parse_strict_json(_read_text(path))
    except ValueError as error:
        raise UserError(f"{path} is corrupt ({error}). Export the artifact again.") from error
    for key in ("truncation_side", "padding_side"):
        if config.get(key) in (None, *get_args(Side)):
            continue
        reason = f"{key} is {json.dumps(config[key])}"
        raise UserError(f"{path} is corrupt ({reason}). Export the artifact again.")
    return config


def _select_special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """bos_token, eos_token and the like, which a chat template may use."""
    tokens = {key: _get_content(value) for key, value in config.items() if key.endswith("_token")}
    return {key: token for key, token in tokens.items() if isinstance(token, str)}


def _get_content(token: Any) -> Any:
    """The text of a token, which may be stored with settings of its own."""
    return token.get("content") if isinstance(token, Mapping) else token


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path} ({summarize_error(error)}). Export the artifact again.") from error
