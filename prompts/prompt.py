"""Prompt sets: JSON lines, one prompt a line, with the text that its picture must show."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ..common.errors import UserError

Language = Literal["en", "zh", "mixed"]


class Prompt(BaseModel):
    """One prompt of a set.

    `language` says how painted text is compared: by words, by characters, or (`mixed`) Chinese by characters and the
    rest by words. `lines` is the text to be painted, top to bottom (empty: none); `categories` names the rows that it
    counts to in tables, such as {"size": "small", "lines": "2"}.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    prompt: str
    language: Language
    lines: tuple[str, ...] = ()
    categories: dict[str, str] = {}


def load_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file, in its order.

    Raises:
        UserError: no such file, a line that is no prompt, an id that comes twice, or no prompt at all.
    """
    try:
        lines = path.read_text("utf-8").split("\n")  # not splitlines: a prompt may hold U+2028
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Prompt file {path} cannot be read ({error}); give a UTF-8 file of JSON lines.") from error
    prompts: dict[str, Prompt] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        prompt = _parse_line(line, f"{path}:{number}")
        if prompt.id in prompts:
            raise UserError(f"{path}:{number}: the id {prompt.id!r} was used before; ids must differ.")
        prompts[prompt.id] = prompt
    if not prompts:
        raise UserError(f"Prompt file {path} holds no prompt; write one JSON object a line.")
    return list(prompts.values())


def save_prompts(prompts: list[Prompt], path: Path) -> None:
    """Writes a set so that `load_prompts` reads the same again."""
    lines = [json.dumps(prompt.model_dump(), ensure_ascii=False) for prompt in prompts]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def is_cjk(character: str) -> bool:
    """Whether it is a Chinese character."""
    return unicodedata.name(character, "").startswith("CJK UNIFIED IDEOGRAPH")


def prompt_set_digest(prompts: Sequence[Prompt]) -> str:
    """The same for the same prompts in the same order, however their file is laid out."""
    content = [prompt.model_dump(mode="json") for prompt in prompts]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _parse_line(line: str, where: str) -> Prompt:
    try:
        return Prompt.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "line"
        raise UserError(f"{where}: {key}: {first['msg']}; see docs/prompts.md for the format.") from error
