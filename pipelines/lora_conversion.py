"""Converts the names in a LoRA's file with the loaders of diffusers, and finds what they leave out.

diffusers has a converter for each pipeline class. Some of them skip tensors in silence; here every tensor is followed
through the conversion, so that none is lost.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..common.articles import add_article
from ..common.errors import UserError
from ..common.requirements import reject_failed_import
from ..models.shared.lora_bases import guess_lora_base
from .lora_names import list_keys, report_unknown_keys

MAX_REASON = 200  # characters
KEY = re.compile(r"[\w.]+\w")


class ConvertedLora(NamedTuple):
    """The tensors of a LoRA under the names of diffusers.

    Attributes:
        tensors: Tensors by component and path in it, such as `transformer.layers.0.attention.to_q.lora_A.weight`.
        alphas: Alphas by component and path of a layer, if they are not part of the tensors.
        lost: Names in the file that the conversion left out.
    """

    tensors: dict[str, Tensor]
    alphas: dict[str, float]
    lost: list[str]


def get_lora_loader(pipeline_class: str) -> Any:
    """The diffusers class that reads LoRAs for a pipeline.

    Raises:
        UserError: diffusers reads none for this class.
    """
    import diffusers

    loader = getattr(diffusers, pipeline_class, None)
    if not hasattr(loader, "lora_state_dict"):
        raise UserError(f"diffusers reads no LoRA for {add_article(pipeline_class)}. Use the pipeline without one.")
    return loader


def convert_lora(
    tensors: Mapping[str, Tensor], pipeline_class: str, denoiser_config: Mapping[str, Any], file: object, base: str = ""
) -> ConvertedLora:
    """Converts the tensors of a file as `load_lora_weights` of the pipeline class does.

    Args:
        tensors: The tensors by their names in the file.
        pipeline_class: Name of the pipeline's class in diffusers.
        denoiser_config: The denoiser's config.json, which tells some converters the numbers of blocks.
        file: The file, for messages.
        base: What the pipeline's denoiser is by the names of its weights, as `guess_lora_base` calls it.

    Raises:
        UserError: diffusers reads no LoRA for the class, or cannot read this one.
    """
    from diffusers.configuration_utils import FrozenDict

    loader = get_lora_loader(pipeline_class)
    many = next((name for name, tensor in tensors.items() if name.endswith(".alpha") and tensor.numel() != 1), None)
    if many is not None:
        raise UserError(f"{file}: {many} is {tensors[many].numel()} numbers instead of one. Download it again.")
    leaves = {name: t.detach().requires_grad_() for name, t in tensors.items() if t.is_floating_point()}
    # Converters change tensors in place, which only tensors that are no leaves allow.
    followed = {name: leaves[name].clone() if name in leaves else tensor for name, tensor in tensors.items()}
    try:
        result = loader.lora_state_dict(followed, unet_config=FrozenDict(denoiser_config), return_alphas=True)
        converted, alphas = (result[0], result[1] or {}) if isinstance(result, tuple) else (result, {})
        detached = {name: tensor.detach() for name, tensor in converted.items()}
        named = _to_peft_names(detached)
    except Exception as error:  # a converter may raise anything for the file of another model
        reject_failed_import(error)
        reason = " ".join((str(error) or type(error).__name__).split())
        remaining = sorted(set(KEY.findall(reason)) & set(tensors))  # some converters say what they have not converted
        if remaining:
            report_unknown_keys(file, remaining)
            reason = f"these keys ({len(remaining)} of {len(tensors)}) have no layer there, {list_keys(remaining)}"
        else:
            reason = reason[:MAX_REASON]
        lora_base = guess_lora_base(remaining or tensors)
        names = f" Its names are those of a LoRA for {lora_base}." if lora_base not in ("", base) else ""
        raise UserError(
            f"diffusers cannot read {file} as a LoRA for {add_article(pipeline_class)}: {reason}.{names} "
            "Use a LoRA that was trained for this model."
        ) from error
    reached = _find_sources(converted.values())
    lost = [name for name, leaf in leaves.items() if id(leaf) not in reached and leaf.numel() > 1]
    paths = {id(tensor): name.partition(".lora_")[0] for name, tensor in named.items()}
    named_alphas = {}
    for key, alpha in alphas.items():
        name = key.removesuffix(".alpha")  # a layer, or in some converters a tensor of a layer
        named_alphas[paths[id(detached[name])] if name in detached else name] = float(torch.as_tensor(alpha).detach())
    return ConvertedLora(named, named_alphas, [name for name in lost if not _is_redundant(name, named)])


def _find_sources(tensors: Collection[Tensor]) -> set[int]:
    """The identities of the leaves that tensors were computed from."""
    functions = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen: set[Any] = set(functions)
    sources = {id(tensor) for tensor in tensors}
    while functions:
        function: Any = functions.pop()
        if hasattr(function, "variable"):
            sources.add(id(function.variable))
        following = {child for child, _ in function.next_functions if child is not None} - seen
        seen |= following
        functions += following
    return sources


def _is_redundant(name: str, converted: Collection[str]) -> bool:
    """Whether a tensor that a converter left out repeats others: a joint projection beside its parts, for instance."""
    base = re.sub(r"\.?lora[._](down|up|A|B)\.weight$", "", name)
    parts = {"qkv": ("to_q", "to_k", "to_v"), "out": ("to_out.0",)}
    suffix = next((suffix for suffix in parts if re.search(rf"[._]{suffix}$", base)), None)
    if suffix is None:
        return False
    block = _squeeze(base.removesuffix(suffix))
    modules = [_squeeze(name.partition(".lora_")[0]) for name in converted]
    return all(any(module.endswith(_squeeze(f"{block}{part}")) for module in modules) for part in parts[suffix])


def _squeeze(name: str) -> str:
    """A name without separators, which trainers write differently, and without the prefixes that they add."""
    return re.sub(r"[._]", "", re.sub(r"^(lora_unet_|diffusion_model\.)", "", name))


def _to_peft_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Replaces the older names of diffusers, such as `.lora.down.weight`, by those of PEFT."""
    from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_peft
    from diffusers.utils import convert_unet_state_dict_to_peft as convert_denoiser

    named: dict[str, Tensor] = {}
    for component in dict.fromkeys(name.partition(".")[0] for name in tensors):
        part = {name: tensor for name, tensor in tensors.items() if name.partition(".")[0] == component}
        if not all(".lora_A." in name or ".lora_B." in name for name in part):
            if component.startswith("text_encoder"):
                part = convert_state_dict_to_peft(convert_state_dict_to_diffusers(part))
            else:
                part = convert_denoiser(part)
        named |= part
    return named
