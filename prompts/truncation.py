"""Says that a prompt is longer than a model reads."""

from __future__ import annotations

import logging
from functools import cache

MAX_SHOWN_CHARACTERS = 60  # of the prompt, and of what is ignored

logger = logging.getLogger(__name__)


def describe_truncation(prompt: str, num_tokens: int, max_tokens: int, ignored: str) -> str:
    """Describes a prompt that is truncated, in two sentences.

    Args:
        prompt: The prompt.
        num_tokens: Its tokens, those of the chat template included.
        max_tokens: The tokens that the model reads.
        ignored: The end of the prompt that the model does not read; empty if that is only the end of the template.
    """
    text = f'the text from "{_shorten(ignored)}" on' if ignored else "only the end of the chat template"
    return (
        f'Prompt "{_shorten(prompt)}" has {num_tokens} tokens; the model reads the first {max_tokens}. '
        f"It ignores {text}."
    )


@cache
def warn_once(notice: str) -> None:
    """Logs a notice, the first time that it is given: a prompt is read by several models, and for several images."""
    logger.warning("%s", notice)


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_SHOWN_CHARACTERS else f"{line[:MAX_SHOWN_CHARACTERS]}…"
