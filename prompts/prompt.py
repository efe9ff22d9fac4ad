"""Prompts, and edgepress's own format of prompt sets: JSON lines, one prompt a line."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)

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
    negative_prompt: str | None = Field(
        default=None, description="What guidance leads away from, instead of that of the recipe."
    )
    guidance: FiniteFloat | None = Field(
        default=None, ge=0, le=1000, description="Guidance scale, instead of that of the recipe; 0 disables guidance."
    )
    image: str | None = Field(
        default=None,
        description="An image file to start from, absolute or relative to the folder of the set; only batches of "
        "`edgepress generate` take one.",
    )
    strength: FiniteFloat | None = Field(
        default=None,
        gt=0,
        le=1,
        description="How much of that image is replaced, above 0 to 1, instead of that of the batch.",
    )
    lines: tuple[str, ...] = Field(
        default=(), description="The text that the image should show, from top to bottom; empty for none."
    )
    categories: dict[str, str] = Field(
        default={},
        description='The rows of the results\' tables that it counts towards, such as {"size": "small", "lines": "2"}.',
    )
    angle: Literal[0, 90, 180, 270] | None = Field(
        default=None,
        description="How far the text should be turned, clockwise, in degrees; upright if left out. Text that differs "
        "by more than 45 degrees does not count as read.",
    )
    region: tuple[FiniteFloat, FiniteFloat, FiniteFloat, FiniteFloat] | None = Field(
        default=None,
        description="Where the text should be: left, top, right and bottom as fractions of the image's width and "
        "height; anywhere if left out. Text whose center is outside does not count as read.",
    )
    text_height: tuple[FiniteFloat, FiniteFloat] | None = Field(
        default=None,
        description="The smallest and the largest height of a line of text, as fractions of the image's height; any if "
        "left out. Text of another height does not count as read.",
    )

    @model_serializer(mode="wrap")
    def _leave_out_what_is_not_stated(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Prompts without a layout are stored, and have a digest, as before there was one."""
        return {key: value for key, value in serialize(self).items() if value is not None}

    def choose_guidance(self, default: float) -> float:
        """Returns its guidance scale, or else the default."""
        return default if self.guidance is None else self.guidance

    def choose_negative_prompt(self, default: str) -> str:
        """Returns its negative prompt, or else the default."""
        return default if self.negative_prompt is None else self.negative_prompt

    @field_validator("guidance", "strength", "angle", "region", "text_height", mode="before")
    @classmethod
    def _require_numbers(cls, value: Any) -> Any:
        """Pydantic would read `true` as the number 1, and the text "0.5" as 0.5."""
        if any(isinstance(entry, bool | str) for entry in (value if isinstance(value, list | tuple) else [value])):
            raise ValueError("must have numbers only")
        return value

    @field_validator("region")
    @classmethod
    def _require_area(cls, region: tuple[float, float, float, float] | None) -> tuple[float, ...] | None:
        if region and not (0 <= region[0] < region[2] <= 1 and 0 <= region[1] < region[3] <= 1):
            raise ValueError("must be left, top, right, bottom with 0 <= left < right <= 1 and 0 <= top < bottom <= 1")
        return region

    @field_validator("text_height")
    @classmethod
    def _require_range(cls, height: tuple[float, float] | None) -> tuple[float, float] | None:
        if height and not 0 <= height[0] < height[1] <= 1:
            raise ValueError("must be smallest, largest with 0 <= smallest < largest <= 1")
        return height


def require_guidance(prompts: Sequence[Prompt], takes_guidance: bool, pipeline_class: str) -> None:
    """Checks that prompts have a guidance scale of their own only where it has an effect.

    Args:
        prompts: The prompts.
        takes_guidance: Whether the pipeline has guidance.
        pipeline_class: Its class.

    Raises:
        UserError: A prompt has one, and it has none.
    """
    guided = next((prompt for prompt in prompts if prompt.guidance), None)
    if guided and not takes_guidance:
        raise UserError(
            f"The prompt {guided.id!r} has a guidance scale, but this {pipeline_class} has no guidance. Remove "
            "'guidance' from the prompt."
        )


def describe_missing_guidance(pipeline_class: str) -> str:
    """The notice for a guidance scale of 0 where the model was distilled with a scale above 0."""
    return (
        f"This {pipeline_class} was trained with guidance scales above 0, and the scale is 0: images will be worse. "
        "Set a guidance scale, for example 3.5."
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


def prompt_seed(prompt_id: str, seed: int) -> int:
    """The 63-bit seed of an image's noise, equal on every machine."""
    return int.from_bytes(hashlib.sha256(f"{prompt_id}:{seed}".encode()).digest()[:8], "big") >> 1


def prompt_set_digest(prompts: Sequence[Prompt]) -> str:
    """A SHA-256 of prompts in order, independent of the formatting of their file."""
    content = [prompt.model_dump(mode="json") for prompt in prompts]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
