"""How many tokens of a prompt a loaded diffusers pipeline reads, by the same arithmetic as the exported graphs.

The transformer's position table can be shorter than what the pipeline passes on; it would then fail with an IndexError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..models.base.host import Host, load_host
from ..models.registry import load_families
from ..prompts.truncation import describe_truncation, find_ignored_text


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
    return [_describe_if_long(pipeline.tokenizer, host, prompt) for prompt in prompts]


def _describe_if_long(tokenizer: Any, host: Host, prompt: str) -> str:
    messages = [{"role": "user", "content": prompt}]
    rendered = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **host.chat_template_kwargs
    )
    encoding = tokenizer(rendered, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False)
    num_tokens, side = len(encoding.input_ids), tokenizer.truncation_side
    if num_tokens <= host.max_tokens:
        return ""
    ignored = find_ignored_text(
        prompt, rendered, encoding.offset_mapping, encoding.special_tokens_mask, host.max_tokens, side
    )
    return describe_truncation(prompt, num_tokens, host.max_tokens, ignored, side)


def _collect_configs(pipeline: Any) -> dict[str, Mapping[str, Any]]:
    """The configs of a pipeline's components, by name."""
    configs: dict[str, Mapping[str, Any]] = {}
    for name, component in pipeline.components.items():
        config = getattr(component, "config", None)
        if config is not None:
            configs[name] = config if isinstance(config, Mapping) else config.to_dict()
    return configs
