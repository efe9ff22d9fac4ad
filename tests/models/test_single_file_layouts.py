"""Names of tensors in single files, against the converters of diffusers and the names of the `gguf` package."""

from __future__ import annotations

from typing import Any

import gguf
import pytest
import torch
from gguf import MODEL_ARCH, get_tensor_name_map

from edgepress.benchmarks.synthetic.tiny_denoisers import DENOISERS
from edgepress.benchmarks.synthetic.tiny_text_encoders import TEXT_ENCODERS
from edgepress.benchmarks.synthetic.tiny_variations import VARIATIONS
from edgepress.common.errors import UserError
from edgepress.models.base.family import Component, Family
from edgepress.models.single_file_layouts import find_layout, find_layouts

WIDE = {"num_attention_heads": 24, "attention_head_dim": 128}  # what diffusers' converter of FLUX.1 is written for
DENOISER_CLASSES: dict[str, dict[str, Any]] = {
    "ZImageTransformer2DModel": {},
    "FluxTransformer2DModel": WIDE,
    "Flux2Transformer2DModel": {},
    "QwenImageTransformer2DModel": {},
    "SD3Transformer2DModel": {"dual_attention_layers": (0,), "qk_norm": "rms_norm"},
    "UNet2DConditionModel": VARIATIONS["StableDiffusionXLPipeline"].configs["unet"] | {"layers_per_block": 2},
}


def build_empty(library: Any, class_name: str, config: dict[str, Any]) -> Any:
    """A component without memory for its weights."""
    cls = getattr(library, class_name)
    with torch.device("meta"):
        return cls(cls.config_class(**config)) if hasattr(cls, "config_class") else cls(**config)


@pytest.mark.slow  # diffusers imports much for it
@pytest.mark.parametrize("class_name", DENOISER_CLASSES)
def test_diffusers_converts_the_names_back(class_name: str) -> None:
    """A tensor stands for itself with one value for each row."""
    import diffusers
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    config = DENOISERS[class_name] | DENOISER_CLASSES[class_name]
    model = build_empty(diffusers, class_name, config)
    values = {
        name: torch.randn(*tensor.shape[:1], *(1 for _ in tensor.shape[1:]))
        for name, tensor in model.state_dict().items()
    }
    layout = find_layout(class_name, dict(model.config))
    assert layout is not None
    file = {}
    for name, tensor in layout.names.group(values).items():
        halves = torch.cat([values[part] for part in tensor.parts]).chunk(2)
        file[layout.names.prefix + name] = torch.cat(halves[::-1] if tensor.has_swapped_halves else halves)
    convert = SINGLE_FILE_LOADABLE_CLASSES[class_name]["checkpoint_mapping_fn"]
    converted = convert(checkpoint=file, config=dict(model.config))
    assert converted.keys() == values.keys()
    assert [name for name, tensor in values.items() if not torch.equal(tensor, converted[name])] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("class_name", "kind", "left_out"),
    [
        ("Qwen3Model", MODEL_ARCH.QWEN3, ""),
        ("Qwen3ForCausalLM", MODEL_ARCH.QWEN3, ""),
        ("Qwen2_5_VLForConditionalGeneration", MODEL_ARCH.QWEN2VL, "model.visual."),
        ("T5EncoderModel", MODEL_ARCH.T5ENCODER, "encoder.embed_tokens."),
    ],
)
def test_text_encoders_have_llama_cpps_names(class_name: str, kind: MODEL_ARCH, left_out: str) -> None:
    import transformers

    model = build_empty(transformers, class_name, TEXT_ENCODERS[class_name])
    mapping, prefix = (
        get_tensor_name_map(kind, 2),
        "" if hasattr(model, "shared") or hasattr(model, "lm_head") else "model.",
    )
    layout = find_layout(class_name, TEXT_ENCODERS[class_name])
    assert layout is not None
    assert layout.architecture == gguf.MODEL_ARCH_NAMES[kind]
    names = list(model.state_dict())
    tensors = layout.names.group(names)
    present = {part for tensor in tensors.values() for part in tensor.parts}
    assert set(names) - present == {name for name in names if left_out and name.startswith(left_out)}
    for name, tensor in tensors.items():
        original = prefix + tensor.parts[0].replace("language_model.", "")
        assert mapping.get_name(original, try_suffixes=(".weight", ".bias")) == name


def test_only_known_components_have_a_layout() -> None:
    assert find_layout("AutoencoderKL", {}) is None
    assert find_layout("UNet2DConditionModel", {"addition_embed_type": None}) is None
    family = Family("SomePipeline", "unet", (Component("unet", "UNet2DConditionModel", role="denoiser"),))
    with pytest.raises(UserError, match="does not know the names of tensors in single files of SomePipeline"):
        find_layouts(family, {"unet": {}})
