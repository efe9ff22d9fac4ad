"""How prompts become token ids: what a pipeline does with its tokenizers, and the ids that it gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:  # commands that generate no image start without numpy
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class PromptFormat:
    """How a pipeline turns a prompt into the token ids of a text encoder.

    Attributes:
        tokenizer: Folder of the tokenizer.
        max_tokens: Number of tokens at which prompts are truncated, those of a template included.
        is_padded: Whether shorter prompts are padded to that number.
        chat_template_kwargs: Variables that the pipeline passes to the tokenizer's chat template; None: prompts are no
            messages of a chat.
        text: What surrounds a prompt that is no message; the prompt stands at `{}`.
        length_argument: Argument of the pipeline that changes `max_tokens`, if it must be given for long prompts.
    """

    tokenizer: str
    max_tokens: int
    is_padded: bool = False
    chat_template_kwargs: Mapping[str, Any] | None = None
    text: str = "{}"
    length_argument: str = ""


@dataclass(frozen=True)
class PromptTokens:
    """The token ids of a prompt.

    Attributes:
        ids: Token ids, (tokens,).
        num_pads: How many of the last ones are pads.
    """

    ids: NDArray[np.int64]
    num_pads: int = 0


TokensByTokenizer: TypeAlias = Mapping[str, PromptTokens]  # by folder of the tokenizer


def make_trial_tokens(formats: Sequence[PromptFormat], length: int) -> dict[str, PromptTokens]:
    """Makes tokens of a prompt that nobody reads, to find out about shapes.

    Args:
        formats: How the pipeline turns prompts into tokens.
        length: Tokens of the prompt.
    """
    import numpy as np

    tokens = {}
    for prompt_format in formats:
        count = min(length, prompt_format.max_tokens)
        pads = prompt_format.max_tokens - count if prompt_format.is_padded else 0
        tokens[prompt_format.tokenizer] = PromptTokens(np.zeros(count + pads, np.int64), pads)
    return tokens


def get_longest_format(formats: Sequence[PromptFormat]) -> PromptFormat:
    """Returns the format that reads most of a prompt."""
    return max(formats, key=lambda prompt_format: prompt_format.max_tokens)
