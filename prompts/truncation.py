"""Says that a prompt is longer than a model reads."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import Literal

MAX_SHOWN_CHARACTERS = 60  # of the prompt, and of what is ignored

Side = Literal["left", "right"]
"""Where a tokenizer removes tokens: at the beginning or at the end of a text."""

logger = logging.getLogger(__name__)


def find_ignored_text(
    prompt: str,
    rendered: str,
    offsets: Sequence[tuple[int, int]],
    special: Sequence[int],
    max_tokens: int,
    side: Side = "right",
) -> str:
    """Finds the part of a prompt that is removed when its tokens are truncated.

    Args:
        prompt: The prompt.
        rendered: The chat template with the prompt in it, which was tokenized.
        offsets: Begin and end of each token in it.
        special: For each token, 1 if the tokenizer adds it after truncation, such as a token for the end; else 0.
        max_tokens: The tokens that the model reads, added ones included.
        side: Where tokens are removed.
    """
    text = [place for place, is_added in zip(offsets, special, strict=True) if not is_added]
    num_removed = len(text) - max(max_tokens - sum(special), 0)
    start = rendered.find(prompt)
    if not text:
        return prompt
    if side == "left":
        return prompt[: max(text[num_removed - 1][1] - start, 0)]
    return prompt[max(text[-num_removed][0] - start, 0) :]


def describe_truncation(prompt: str, num_tokens: int, max_tokens: int, ignored: str, side: Side = "right") -> str:
    """Describes a prompt that is truncated, in two sentences.

    Args:
        prompt: The prompt.
        num_tokens: Its tokens, those of the chat template included.
        max_tokens: The tokens that the model reads.
        ignored: The part of the prompt that the model does not read; empty if that is only a part of the template.
        side: Where tokens are removed.
    """
    if side == "left":
        read, end = "last", "beginning"
        text = f'the text up to "{_shorten(ignored[::-1])[::-1]}"'
    else:
        read, end = "first", "end"
        text = f'the text from "{_shorten(ignored)}" on'
    return (
        f'Prompt "{_shorten(prompt)}" has {num_tokens} tokens; the model reads the {read} {max_tokens}. '
        f"It ignores {text if ignored else f'only the {end} of the chat template'}."
    )


@cache
def warn_once(notice: str) -> None:
    """Logs a notice, the first time that it is given: a prompt is read by several models, and for several images."""
    logger.warning("%s", notice)


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_SHOWN_CHARACTERS else f"{line[:MAX_SHOWN_CHARACTERS]}…"
