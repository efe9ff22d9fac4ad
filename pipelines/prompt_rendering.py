"""The text that a pipeline's tokenizer reads of a prompt."""

from __future__ import annotations

from typing import Any

from ..models.base.prompt_tokens import PromptFormat


def render_prompt(tokenizer: Any, prompt_format: PromptFormat, prompt: str) -> str:
    """Returns a prompt as the tokenizer reads it: as a message of a chat, or with what surrounds it.

    Args:
        tokenizer: The tokenizer, as transformers loads it.
        prompt_format: How the pipeline turns prompts into tokens.
        prompt: The prompt.
    """
    if prompt_format.chat_template_kwargs is None:
        return prompt_format.text.replace("{}", prompt)
    messages = [{"role": "user", "content": prompt}]
    rendered: str = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **prompt_format.chat_template_kwargs
    )
    return rendered
