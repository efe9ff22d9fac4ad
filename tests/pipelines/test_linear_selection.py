"""Which linears are quantized: toy modules for the rules, genuine classes for what the rules make of them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import tiny_families
from torch import nn

from edgepress.models.base.family import Component
from edgepress.pipelines.linear_selection import (
    KeepReason,
    LinearSelection,
    explain_convolutions,
    find_repeated_blocks,
    select_convolutions,
    select_linears,
)

PLAIN = Component("transformer", "Toy", role="denoiser")


class FeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.ModuleList([nn.Linear(64, 128), nn.Dropout(), nn.Linear(128, 64)])


class AdaptiveNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 128)


class SparseMoE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(64, 8)
        self.experts = nn.ModuleList(FeedForward() for _ in range(8))


class ToyBlock(nn.Module):
    """A block; further modules by name."""

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        self.to_q = nn.Linear(64, 64)
        self.to_out = nn.ModuleList([nn.Linear(64, 64), nn.Dropout()])
        self.ff = FeedForward()
        for name, module in modules.items():
            self.add_module(name, module)


class ToyModel(nn.Module):
    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        self.proj_in = nn.Linear(64, 64)
        self.blocks = nn.ModuleList(ToyBlock(**modules) for _ in range(2))
        self.proj_out = nn.Linear(64, 64)


def select(model: nn.Module, component: Component = PLAIN) -> LinearSelection:
    return select_linears(model, component)


# ---------------------------------------------------------------- the rules


def test_the_linears_of_repeated_blocks_are_quantized_and_the_others_are_not() -> None:
    selection = select(ToyModel())
    assert [block.path for block in selection.blocks] == ["blocks.0", "blocks.1"]
    assert selection.blocks[0].linears == ("to_q", "to_out.0", "ff.net.0", "ff.net.2")
    assert selection.kept_linears == dict.fromkeys(("proj_in", "proj_out"), KeepReason.OUTSIDE)
    assert selection.weights["blocks.1.ff.net.0"] == 64 * 128


class ConvBlock(nn.Module):
    """Plain convolutions, one of them with two names, and some that are not plain."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.shortcut = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1)
        self.conv, self.alias = (nn.Conv2d(8, 8, 3),) * 2
        self.depthwise, self.circular = nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 8, 3, padding_mode="circular")
        self.norm = nn.Sequential(nn.Conv2d(8, 8, 1))
        self.upsample = nn.ConvTranspose2d(8, 8, 2)


def test_plain_convolutions_of_repeated_blocks_may_be_stored_in_8_bits() -> None:
    model = nn.Module()
    model.conv_in = nn.Conv2d(4, 8, 3)
    model.blocks = nn.ModuleList([ConvBlock(), ConvBlock()])
    model.attentions = nn.ModuleList([None, None])  # type: ignore[list-item]  as in a VAE without attention
    selected = select_convolutions(model, find_repeated_blocks(model))
    assert selected == ("blocks.0.conv1", "blocks.0.shortcut", "blocks.1.conv1", "blocks.1.shortcut")
    reasons = explain_convolutions(model, find_repeated_blocks(model))
    assert {path: reason for path, reason in reasons.items() if not path.startswith("blocks.1.")} == {
        "conv_in": KeepReason.OUTSIDE,
        "blocks.0.conv1": None,
        "blocks.0.shortcut": None,
        "blocks.0.conv": KeepReason.SHARED,
        "blocks.0.alias": KeepReason.SHARED,
        "blocks.0.depthwise": KeepReason.GROUPED,
        "blocks.0.circular": KeepReason.SPECIAL_CONVOLUTION,
        "blocks.0.norm.0": KeepReason.MODULATION,
        "blocks.0.upsample": KeepReason.SPECIAL_CONVOLUTION,
    }


def test_every_linear_is_either_quantized_or_kept_for_a_reason() -> None:
    model = ToyModel(norm=AdaptiveNorm(), moe=SparseMoE(), visual=nn.Linear(64, 64))
    selection = select(model)
    linears = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert not set(selection.quantized) & selection.kept_linears.keys()
    assert {*selection.quantized, *selection.kept_linears} == linears == selection.weights.keys()


@pytest.mark.parametrize(
    ("name", "module", "reason"),
    [
        ("norm1", AdaptiveNorm(), KeepReason.MODULATION),
        ("scale", AdaptiveNorm(), KeepReason.MODULATION),  # by its class
        ("img_mod", nn.Sequential(nn.SiLU(), nn.Linear(64, 64)), KeepReason.MODULATION),
        ("adaLN_modulation", nn.Linear(64, 64), KeepReason.MODULATION),
        ("time_emb_proj", nn.Linear(64, 64), KeepReason.EMBEDDER),
        ("patch_embed", nn.Linear(64, 64), KeepReason.EMBEDDER),
        ("vision_tower", nn.Linear(64, 64), KeepReason.IMAGE_TOWER),
        ("odd", nn.Linear(48, 64), KeepReason.WIDTH),
        ("narrow", nn.Linear(64, 12), KeepReason.WIDTH),
        ("mha", nn.MultiheadAttention(64, 2), KeepReason.SPECIAL),  # which never calls its output layer
        ("gate", nn.Linear(64, 64), None),  # of a feed-forward
        ("model_proj", nn.Linear(64, 64), None),
    ],
)
def test_the_role_of_a_linear_decides(name: str, module: nn.Module, reason: KeepReason | None) -> None:
    selection = select(ToyModel(**{name: module}))
    assert {reason_ for path, reason_ in selection.kept_linears.items() if path.startswith("blocks.0.")} == {reason} - {
        None
    }
    assert (reason is None) == (f"blocks.0.{name}" in selection.quantized)


def test_the_router_of_experts_is_kept_and_each_expert_is_a_block() -> None:
    selection = select(ToyModel(moe=SparseMoE()))
    assert selection.kept_linears["blocks.0.moe.gate"] == KeepReason.ROUTER
    experts = [block for block in selection.blocks if block.path.startswith("blocks.0.moe.experts.")]
    assert [block.linears for block in experts] == [("net.0", "net.2")] * 8


class FusedExperts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down_proj = nn.Parameter(torch.zeros(8, 128, 64))
        self.scale = nn.Parameter(torch.zeros(64))


def test_experts_in_one_tensor_are_kept_and_named() -> None:
    selection = select(ToyModel(moe=FusedExperts()))
    assert selection.kept_linears["blocks.0.moe.down_proj"] == KeepReason.FUSED
    assert selection.weights["blocks.0.moe.down_proj"] == 8 * 128 * 64
    assert "blocks.0.moe.scale" not in selection.kept_linears


def test_a_linear_without_outputs_is_kept() -> None:
    """As in the last block of a transformer that computes nothing more for the prompt."""
    selection = select(ToyModel(to_add_out=nn.Linear(64, 0)))
    assert selection.kept_linears["blocks.0.to_add_out"] == KeepReason.WIDTH


def test_a_block_inside_another_one_has_its_own_linears() -> None:
    model = nn.Module()
    model.down = nn.ModuleList(nn.Sequential() for _ in range(2))
    outer = ToyBlock(inner=nn.ModuleList([ToyBlock()]))  # a list of one
    model.down.append(outer)
    assert find_repeated_blocks(model) == ("down.2.inner.0",)  # the list has one of its class among others
    model.down.append(ToyBlock())
    assert find_repeated_blocks(model) == ("down.2", "down.3", "down.2.inner.0")
    linears = {block.path: block.linears for block in select(model).blocks}
    assert linears["down.2"] == linears["down.2.inner.0"] == ("to_q", "to_out.0", "ff.net.0", "ff.net.2")


def test_a_family_overrules_the_rules() -> None:
    model = ToyModel(norm=AdaptiveNorm())
    component = Component("transformer", "Toy", kept_linears=(r"ff\.net\.2$",), quantized_linears=(r"norm\.linear$",))
    selection = select(model, component)
    assert selection.blocks[0].linears == ("to_q", "to_out.0", "ff.net.0", "norm.linear")
    assert selection.kept_linears["blocks.1.ff.net.2"] == KeepReason.FAMILY


# ---------------------------------------------------------------- genuine classes


def select_copies(model: nn.Module) -> dict[str, set[str]]:
    """The quantized linears of each kind of block, by the path without numbers; all copies must be alike."""
    kinds: dict[str, set[str]] = {}
    for block in select(model).blocks:
        linears = set(block.linears)
        assert kinds.setdefault(re.sub(r"\d+", "*", block.path), linears) == linears
    return kinds


def make_on_meta(make: Any, **config: Any) -> nn.Module:
    with torch.device("meta"):
        model: nn.Module = make(**config)
    return model


ATTENTION = {"attn.to_q", "attn.to_k", "attn.to_v"}
JOINT = ATTENTION | {"attn.to_out.0", "attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"}
FEED_FORWARDS = {"ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2"}


def test_two_streams_and_then_one() -> None:
    model = make_on_meta(tiny_families.flux_transformer)
    assert select_copies(model) == {
        "transformer_blocks.*": JOINT | FEED_FORWARDS,
        "single_transformer_blocks.*": ATTENTION | {"proj_mlp", "proj_out"},
    }
    kept_linears = select(model).kept_linears
    assert {path for path, reason in kept_linears.items() if reason == KeepReason.MODULATION} == {
        "transformer_blocks.0.norm1.linear",
        "transformer_blocks.0.norm1_context.linear",
        "single_transformer_blocks.0.norm.linear",
    }
    assert {"x_embedder", "context_embedder", "proj_out", "norm_out.linear"} <= kept_linears.keys()


def test_a_unet_with_blocks_in_blocks() -> None:
    kinds = select_copies(make_on_meta(tiny_families.sdxl_unet))
    attentions = {f"{attn}.{name}" for attn in ("attn1", "attn2") for name in ("to_q", "to_k", "to_v", "to_out.0")}
    block = attentions | {"ff.net.0.proj", "ff.net.2"}
    places = ("down_blocks.*.attentions.*", "up_blocks.*.attentions.*", "mid_block.attentions.*")
    assert kinds == {place: {"proj_in", "proj_out"} for place in places} | {
        f"{place}.transformer_blocks.*": block for place in places
    }


def test_a_block_that_is_called_after_its_norm_is_no_norm() -> None:
    from diffusers import ErnieImageTransformer2DModel

    sizes = {"hidden_size": 64, "num_attention_heads": 2, "num_layers": 2, "ffn_hidden_size": 128}
    rope = {"text_in_dim": 64, "rope_axes_dim": (8, 12, 12)}
    attention = {f"self_attention.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")}
    assert select_copies(make_on_meta(ErnieImageTransformer2DModel, **sizes, **rope)) == {
        "layers.*": attention | {"mlp.gate_proj", "mlp.up_proj", "mlp.linear_fc2"}
    }


def test_what_is_visual_in_a_denoiser_makes_the_image() -> None:
    from diffusers import Kandinsky5Transformer3DModel

    sizes = {"model_dim": 64, "ff_dim": 128, "time_dim": 32, "num_text_blocks": 1, "num_visual_blocks": 2}
    model = make_on_meta(Kandinsky5Transformer3DModel, **sizes, axes_dims=(8, 12, 12))
    layers = {f"self_attention.{name}" for name in ("to_query", "to_key", "to_value", "out_layer")}
    layers |= {"feed_forward.in_layer", "feed_forward.out_layer"}
    kinds = select_copies(model)
    assert kinds["text_transformer_blocks.*"] == layers
    assert kinds["visual_transformer_blocks.*"] == layers | {
        path.replace("self", "cross") for path in layers if path.startswith("self")
    }
    encoder = replace(PLAIN, role="text_encoder")
    tower = [path for path in select(model).quantized if path.startswith("visual")]
    assert {select(model, encoder).kept_linears[path] for path in tower} == {KeepReason.IMAGE_TOWER}


def test_text_encoders() -> None:
    t5 = select_copies(make_on_meta(tiny_families.t5))
    attention = {f"layer.0.SelfAttention.{name}" for name in "qkvo"}
    assert t5 == {"encoder.block.*": attention | {f"layer.1.DenseReluDense.{name}" for name in ("wi_0", "wi_1", "wo")}}
    (clip,) = select_copies(make_on_meta(tiny_families.clip)).values()
    assert clip == {f"self_attn.{name}_proj" for name in ("q", "k", "v", "out")} | {"mlp.fc1", "mlp.fc2"}
