"""All tokenizers of an exported pipeline: the tokens of a prompt for each text encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..models.base.prompt_tokens import PromptFormat, PromptTokens, get_longest_format
from .tokenizer import PromptTokenizer


@dataclass(frozen=True)
class EncodedText:
    """The tokens of a prompt.

    Attributes:
        tokens: Tokens, by tokenizer.
        truncation_notice: A sentence that says which text no text encoder reads; empty if one reads all.
    """

    tokens: Mapping[str, PromptTokens]
    truncation_notice: str = ""


class PromptTokenizers:
    """The tokenizers of an exported pipeline.

    Args:
        folder: Folder of the export.
        prompt_formats: How the pipeline turns prompts into tokens.
        max_tokens: Number of tokens of the longest prompt that graphs of fixed shapes take; None: as the pipeline.

    Raises:
        UserError: A file is missing or corrupt.
    """

    def __init__(self, folder: Path, prompt_formats: Sequence[PromptFormat], max_tokens: int | None = None) -> None:
        formats = [limit_format(prompt_format, max_tokens) for prompt_format in prompt_formats]
        self._longest = get_longest_format(formats).tokenizer
        self._tokenizers = {
            prompt_format.tokenizer: PromptTokenizer(folder / prompt_format.tokenizer, prompt_format)
            for prompt_format in formats
        }

    def tokenize(self, text: str) -> EncodedText:
        """Tokenizes a prompt.

        Raises:
            UserError: The prompt is not valid Unicode, or a chat template rejects it.
        """
        prompts = {name: tokenizer.tokenize(text) for name, tokenizer in self._tokenizers.items()}
        tokens = {name: PromptTokens(prompt.ids, prompt.num_pads) for name, prompt in prompts.items()}
        return EncodedText(tokens, prompts[self._longest].truncation_notice)


def limit_format(prompt_format: PromptFormat, max_tokens: int | None) -> PromptFormat:
    """Returns a format with fewer tokens, if its prompts are not padded to one length anyway."""
    if max_tokens is None or prompt_format.is_padded:
        return prompt_format
    return replace(prompt_format, max_tokens=min(max_tokens, prompt_format.max_tokens))
