"""Prompts, and edgepress's own format of prompt sets: JSON lines, one prompt a line."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

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


def save_prompts(prompts: Sequence[Prompt], path: Path) -> None:
    """Writes prompts as JSON lines, which `prompts.reader.load_prompts` reads."""
    lines = [json.dumps(prompt.model_dump(), ensure_ascii=False) for prompt in prompts]
    path.write_text("\n".join(lines) + "\n", "utf-8")


def is_cjk(character: str) -> bool:
    """Whether a character is a Chinese character."""
    return unicodedata.name(character, "").startswith("CJK UNIFIED IDEOGRAPH")


def detect_language(text: str) -> Language:
    """Chinese if a text contains a Chinese character, else English."""
    return "zh" if not text.isascii() and any(map(is_cjk, text)) else "en"


def prompt_set_digest(prompts: Sequence[Prompt]) -> str:
    """A SHA-256 of prompts in order, independent of the formatting of their file."""
    content = [prompt.model_dump(mode="json") for prompt in prompts]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
