"""How many tokens of a prompt a loaded diffusers pipeline reads, by the same arithmetic as the exported graphs.

The transformer's position table can be shorter than what the pipeline passes on; it would then fail with an IndexError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..models.base.host import Host, load_host
from ..models.base.prompt_tokens import PromptFormat, get_longest_format
from ..models.registry import load_families
from ..prompts.truncation import describe_truncation, find_ignored_text
from .prompt_rendering import render_prompt


def load_pipeline_host(pipeline: Any) -> Host | None:
    """The host of a loaded pipeline's family; None if it has none: then the pipeline truncates, and says so, itself."""
    family = load_families().get(type(pipeline).__name__)
    if family is None or not family.host:
        return None
    return load_host(family, _collect_configs(pipeline))


def find_truncations(pipeline: Any, host: Host, prompts: Sequence[str]) -> list[str]:
    """Finds prompts that are longer than the pipeline reads.

    Args:
        pipeline: A loaded diffusers pipeline.
        host: Its host.
        prompts: The prompts.

    Returns:
        For each prompt, a sentence that says so, or an empty string.
    """
    longest = get_longest_format(host.prompt_formats)
    return [_describe_if_long(getattr(pipeline, longest.tokenizer), longest, prompt) for prompt in prompts]


def _describe_if_long(tokenizer: Any, prompt_format: PromptFormat, prompt: str) -> str:
    rendered, max_tokens = render_prompt(tokenizer, prompt_format, prompt), prompt_format.max_tokens
    encoding = tokenizer(rendered, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False)
    num_tokens, side = len(encoding.input_ids), tokenizer.truncation_side
    if num_tokens <= max_tokens:
        return ""
    ignored = find_ignored_text(
        prompt, rendered, encoding.offset_mapping, encoding.special_tokens_mask, max_tokens, side
    )
    return describe_truncation(prompt, num_tokens, max_tokens, ignored, side)


def _collect_configs(pipeline: Any) -> dict[str, Mapping[str, Any]]:
    """The configs of a pipeline's components, by name."""
    configs: dict[str, Mapping[str, Any]] = {"pipeline": pipeline.config}
    for name, component in pipeline.components.items():
        config = getattr(component, "config", None)
        if config is not None:
            configs[name] = config if isinstance(config, Mapping) else config.to_dict()
    return configs
