"""Tiny pipelines of any text-to-image class of diffusers, with random weights.

The parameters of a constructor say which components a class has; their configs are in `tiny_denoisers`,
`tiny_text_encoders`, `tiny_decoders` and `tiny_tokenizers`. What a class needs otherwise is in `tiny_variations`.
"""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...prompts.prompt import Prompt, save_prompts
from .tiny_decoders import DECODERS, SCHEDULERS
from .tiny_denoisers import DENOISERS
from .tiny_text_encoders import IMAGE_ENCODERS, TEXT_ENCODERS
from .tiny_tokenizers import IMAGE_PROCESSORS, TOKENIZERS
from .tiny_variations import VARIATIONS, Variation

# Components that are no class of the top of diffusers or transformers, by the module that has them.
OWN_CLASSES = {
    "MultilingualCLIP": "diffusers.pipelines.kandinsky.text_encoder",
    "LDMBertModel": "diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion",
    "ChatGLMModel": "diffusers.pipelines.kolors.text_encoder",
    "PaellaVQModel": "diffusers.pipelines.deprecated.wuerstchen.modeling_paella_vq_model",
    "StableUnCLIPImageNormalizer": "diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer",
    "T5GemmaEncoder": "transformers.models.t5gemma.modeling_t5gemma",  # diffusers saves its own as what nothing opens
}
TEXTS = ("a cat", "two dogs", "a blue bird", "fog over a field", "one old shoe")  # of prompts
UNINITIALIZED = ("ChatGLMModel",)  # whose constructors leave weights as memory was


def write_tiny_pipeline(name: str, folder: Path) -> None:
    """Writes a pipeline folder with a few prompts; its weights are equal each time.

    Args:
        name: A pipeline class of diffusers.
        folder: The folder to write.

    Raises:
        ValueError: There is no tiny config of one of its components.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = build_tiny_pipeline(name)
        for component in pipeline.components.values():
            if isinstance(component, nn.Module):
                randomize_weights(component)
    pipeline.save_pretrained(folder)
    (folder / "prompts").mkdir()
    prompts = [Prompt(id=text, prompt=text, language="en") for text in TEXTS]
    for purpose in ("calibration", "evaluation"):
        save_prompts(prompts, folder / "prompts" / f"{purpose}.jsonl")


def build_tiny_pipeline(name: str, configs: dict[str, dict[str, Any]] | None = None) -> Any:
    """Builds a tiny pipeline.

    Args:
        name: A pipeline class of diffusers.
        configs: More changes of components' configs, by the constructor's parameter.

    Raises:
        ValueError: There is no tiny config of one of its components.
    """
    import diffusers

    cls = getattr(diffusers, name)
    variation = VARIATIONS.get(name, Variation())
    arguments: dict[str, Any] = dict(variation.arguments)
    for parameter in list(inspect.signature(cls.__init__).parameters.values())[1:]:
        if parameter.name in arguments:
            continue
        if parameter.name in variation.classes:
            class_name = variation.classes[parameter.name]
        elif parameter.name in cls._optional_components:
            class_name = None if _is_image_component(parameter.name) else _find_class(parameter)
        elif parameter.default is not inspect.Parameter.empty and _find_class(parameter) is None:
            continue
        else:
            class_name = _find_class(parameter)
            if class_name is None:
                raise ValueError(f"no tiny config of {parameter.name}: {parameter.annotation}")
        config = _merge(variation.configs.get(parameter.name, {}), (configs or {}).get(parameter.name, {}))
        arguments[parameter.name] = None if class_name is None else build_tiny_component(class_name, config)
    return cls(**arguments)


def build_tiny_component(class_name: str, changes: dict[str, Any]) -> Any:
    """Builds a component with random weights.

    Args:
        class_name: A class of diffusers or transformers.
        changes: Changes of its config.
    """
    import transformers

    if class_name in IMAGE_PROCESSORS:
        return getattr(transformers, class_name)()
    if class_name in TOKENIZERS:
        return TOKENIZERS[class_name]()
    configs = DENOISERS | DECODERS | SCHEDULERS | TEXT_ENCODERS | IMAGE_ENCODERS
    config, cls = _merge(configs[class_name], changes), _resolve(class_name)
    return _build_text_encoder(cls, config) if issubclass(cls, transformers.PreTrainedModel) else cls(**config)


def _build_text_encoder(cls: Any, values: dict[str, Any]) -> Any:
    config = cls.config_class(**values)
    if "encoder" not in values:
        model = cls(config)
        for name, parameter in model.named_parameters() if cls.__name__ in UNINITIALIZED else ():
            parameter.data.fill_(name.endswith(".weight"))
        return model
    encoder = cls(config.encoder)
    encoder.config = config  # published with that of the whole model, of which diffusers takes the encoder's
    return encoder


def _resolve(class_name: str) -> Any:
    """Returns a class of diffusers or transformers."""
    import diffusers
    import transformers

    if class_name in OWN_CLASSES:
        return getattr(importlib.import_module(OWN_CLASSES[class_name]), class_name)
    return getattr(diffusers, class_name, None) or getattr(transformers, class_name)


def _merge(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Returns a config with changes, also of the configs inside it."""
    nested = {
        key: _merge(config[key], value)
        for key, value in changes.items()
        if isinstance(value, dict) and isinstance(config.get(key), dict)
    }
    return config | changes | nested


@torch.no_grad()
def randomize_weights(model: nn.Module) -> None:
    """Draws weights that keep the size of activations and hide nothing: biases and norms are random too."""
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if isinstance(module, nn.Embedding):
                parameter.normal_()
            elif parameter.ndim > 1 and parameter.numel():
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            else:
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.eval()


def _is_image_component(name: str) -> bool:
    """Whether a component that may be left out reads or checks images."""
    return bool(re.search("image|feature|safety|watermark|siglip|guider|^pe", name))


def _find_class(parameter: inspect.Parameter) -> str | None:
    """Returns the first class of a parameter's annotation that has a tiny config."""
    names = [name.removesuffix("Pil") for name in re.findall(r"\w+", str(parameter.annotation))]
    known = {*DENOISERS, *DECODERS, *SCHEDULERS, *TEXT_ENCODERS, *IMAGE_ENCODERS, *IMAGE_PROCESSORS, *TOKENIZERS}
    names = ["DDIMScheduler" if name == "KarrasDiffusionSchedulers" else name for name in names]
    return next((name for name in names if name in known), None)
