"""Names of tensors in single files, against the converter of diffusers and the names of the `gguf` package."""

from __future__ import annotations

import pytest
import torch
from gguf import MODEL_ARCH, get_tensor_name_map

from edgepress.common.errors import UserError
from edgepress.models.base.single_file import FusedRows, SingleFileNames, load_gguf_components
from edgepress.models.registry import get_family, load_families

BLOCK = (
    "attention.to_q.weight",
    "attention.to_k.weight",
    "attention.to_v.weight",
    "attention.to_out.0.weight",
    "attention.norm_q.weight",
    "attention.norm_k.weight",
    "attention_norm1.weight",
    "feed_forward.w1.weight",
    "adaLN_modulation.0.bias",
)
NAMES = [
    *(f"{stem}.{name}" for stem in ("layers.0", "noise_refiner.1", "context_refiner.0") for name in BLOCK),
    "all_x_embedder.2-1.weight",
    "all_final_layer.2-1.adaLN_modulation.1.bias",
    "cap_embedder.1.weight",
    "x_pad_token",
]
LAYOUTS = {layout.component: layout for layout in load_gguf_components(get_family("ZImagePipeline"))}


@pytest.mark.slow  # diffusers imports much for it
def test_diffusers_converts_the_names_back() -> None:
    from diffusers.loaders.single_file_utils import convert_z_image_transformer_checkpoint_to_diffusers

    groups = LAYOUTS["transformer"].names.group(NAMES)
    values = {name: torch.full((1, 2), float(i)) for i, name in enumerate(NAMES)}
    file = {name: torch.cat([values[part] for part in parts]) for name, parts in groups.items()}
    converted = convert_z_image_transformer_checkpoint_to_diffusers(file)
    assert {name: tensor.tolist() for name, tensor in converted.items()} == {
        name: tensor.tolist() for name, tensor in values.items()
    }


def test_the_text_encoder_has_llama_cpps_names() -> None:
    mapping = get_tensor_name_map(MODEL_ARCH.QWEN3, 2)
    stems = ["embed_tokens", "norm", "layers.1.input_layernorm", "layers.1.post_attention_layernorm"]
    stems += [f"layers.1.self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")]
    stems += [f"layers.1.mlp.{name}_proj" for name in ("gate", "up", "down")]
    for stem in stems:
        expected = mapping.get_name(f"model.{stem}.weight", try_suffixes=(".weight",))
        assert LAYOUTS["text_encoder"].names.rename(f"{stem}.weight") == expected


def test_a_missing_part_of_a_fused_layer_is_named() -> None:
    names = SingleFileNames(fused=(FusedRows((".q.weight", ".k.weight"), ".qk.weight"),))
    with pytest.raises(UserError, match=r"The tensor 'a\.k\.weight' is missing beside 'a\.q\.weight'"):
        names.group(["a.q.weight", "b.weight"])


def test_a_family_without_names_is_refused() -> None:
    families = [family for family in load_families().values() if not family.gguf]
    assert families
    with pytest.raises(UserError, match=families[0].pipeline_class):
        load_gguf_components(families[0])
