"""Prompts, and files of prompts in edgepress's own format: JSON lines, one prompt a line."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..common.errors import UserError

Language = Literal["en", "zh", "mixed"]


class Prompt(BaseModel):
    """A prompt of a set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(description="A name that is unique in the set. The noise of the image depends on it.")
    prompt: str = Field(description="The prompt.")
    language: Language = Field(
        description="How text in images is compared: `en` by words, `zh` by characters, and `mixed` by characters for "
        "Chinese and by words for the rest."
    )
    lines: tuple[str, ...] = Field(
        default=(), description="The text that the image should show, from top to bottom; empty for none."
    )
    categories: dict[str, str] = Field(
        default={},
        description='The rows of the results\' tables that it counts towards, such as {"size": "small", "lines": "2"}.',
    )


def load_prompts(path: Path) -> list[Prompt]:
    """Loads the prompts of a JSON-lines file, in order.

    Raises:
        UserError: The file cannot be read or has no prompt, a line is not a prompt, or an id is not unique.
    """
    prompts: dict[str, Prompt] = {}
    for number, line in enumerate(read_text_file(path).split("\n"), 1):  # not splitlines: a prompt may contain U+2028
        if not line.strip():
            continue
        prompt = _parse_line(line, f"{path}:{number}")
        if prompt.id in prompts:
            raise UserError(f"{path}:{number}: Duplicate prompt id {prompt.id!r}.")
        prompts[prompt.id] = prompt
    if not prompts:
        raise UserError(f"Prompt file {path} has no prompts. Write one JSON object per line.")
    return list(prompts.values())


def save_prompts(prompts: Sequence[Prompt], path: Path) -> None:
    """Writes prompts as a file that `load_prompts` reads."""
    lines = [json.dumps(prompt.model_dump(), ensure_ascii=False) for prompt in prompts]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def is_cjk(character: str) -> bool:
    """Whether a character is a Chinese character."""
    return unicodedata.name(character, "").startswith("CJK UNIFIED IDEOGRAPH")


def prompt_set_digest(prompts: Sequence[Prompt]) -> str:
    """A SHA-256 of prompts in order, independent of the formatting of their file."""
    content = [prompt.model_dump(mode="json") for prompt in prompts]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_text_file(path: Path) -> str:
    """Reads a file of prompts as text.

    Raises:
        UserError: The file is missing or not UTF-8.
    """
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Prompt file {path} cannot be read ({error}). It must be a UTF-8 text file.") from error


def _parse_line(line: str, where: str) -> Prompt:
    try:
        return Prompt.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "line"
        raise UserError(f"{where}: {key}: {first['msg']}. See docs/prompts.md for the format.") from error
