"""The descriptions of families against the classes that they describe."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import nn

from edgepress.models.base.family import Block, Component, ShiftChain
from edgepress.models.registry import get_family, load_families

GQA = {"num_attention_heads": 4, "num_key_value_heads": 2}


def make_z_image() -> Any:
    from diffusers import ZImageTransformer2DModel

    return ZImageTransformer2DModel(
        dim=384, n_heads=6, n_kv_heads=6, n_layers=2, n_refiner_layers=1, cap_feat_dim=128,
        axes_dims=[16, 24, 24], axes_lens=[256, 64, 64],
    )  # fmt: skip


def make_qwen3() -> Any:
    from transformers import Qwen3Config, Qwen3Model

    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "head_dim": 32, "vocab_size": 32}
    return Qwen3Model(Qwen3Config(**sizes, **GQA))


def make_qwen25_vl() -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "vocab_size": 32}
    rope = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 1e6}
    vision = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 128}
    text = {**sizes, **GQA, "rope_parameters": rope}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))


def denoise(model: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    latents, text = torch.randn(16, 1, 8, 8, generator=generator), torch.randn(10, 128, generator=generator)
    output: torch.Tensor = model([latents], torch.tensor([0.5]), [text], return_dict=False)[0][0]
    return output


def encode(model: Any) -> torch.Tensor:
    output: torch.Tensor = model(torch.arange(6)[None], output_hidden_states=True).hidden_states[-2]
    return output


def encode_all(model: Any) -> torch.Tensor:
    output: torch.Tensor = model(torch.arange(6)[None], output_hidden_states=True).hidden_states[-1]
    return output


EXAMPLES = {
    "ZImageTransformer2DModel": make_z_image,
    "Qwen3Model": make_qwen3,
    "Qwen2_5_VLForConditionalGeneration": make_qwen25_vl,
}
RUNS = {
    "ZImageTransformer2DModel": denoise,
    "Qwen3Model": encode,
    "Qwen2_5_VLForConditionalGeneration": encode_all,
}
# One of each class: families share their text encoders. Folds of those without chains are tested with whole pipelines,
# in tests/quantize/algorithms/test_scale_folding.py.
COMPONENTS = {
    component.model_class: component
    for family in load_families().values()
    for component in family.components
    if any(block.chains for block in component.blocks)
}
for_each_component = pytest.mark.parametrize(
    "component", COMPONENTS.values(), ids=lambda component: component.model_class
)


def make_meta_model(component: Component) -> nn.Module:
    """Makes a small model of the component's class on the meta device."""
    with torch.device("meta"):
        model: nn.Module = EXAMPLES[component.model_class]()
    return model


def list_copies(model: nn.Module, block: Block) -> dict[str, nn.Module]:
    """Returns the copies of a block in a model, by path."""
    stem = block.path.removesuffix(".*")
    return {f"{stem}.{index}": copy for index, copy in enumerate(model.get_submodule(stem))}


# ---------------------------------------------------------------- data against the classes


@for_each_component
def test_folds_name_modules_of_matching_types_and_widths(component: Component) -> None:
    model = make_meta_model(component)
    for block in component.blocks:
        for path, copy in list_copies(model, block).items():
            for fold in block.folds:
                prev_op = copy.get_submodule(fold.prev_op)
                linears = [copy.get_submodule(name) for name in fold.linears]
                assert all(isinstance(linear, nn.Linear) for linear in linears), f"{path}: {fold}"
                widths = {linear.in_features for linear in linears if isinstance(linear, nn.Linear)}
                if fold.kind == "norm":
                    assert "Norm" in type(prev_op).__name__, f"{path}: {fold.prev_op} is not a norm"
                    assert getattr(prev_op, "bias", None) is None, f"{path}: {fold.prev_op} has a bias"
                    assert widths == {prev_op.weight.shape[0]}, f"{path}: {fold}"
                else:
                    assert isinstance(prev_op, nn.Linear), f"{path}: {fold.prev_op} is not a linear"
                    keys = fold.gqa_config_keys
                    repeat = GQA[keys[0]] // GQA[keys[1]] if keys else 1
                    assert widths == {prev_op.out_features * repeat}, f"{path}: {fold}"


@for_each_component
def test_each_linear_is_in_one_fold(component: Component) -> None:
    for block in component.blocks:
        assert len(block.linears) == len(set(block.linears))


@for_each_component
def test_all_repeated_blocks_are_described(component: Component) -> None:
    """A ModuleList of blocks with attention that no path names would silently stay in 16 bits."""
    model = make_meta_model(component)
    lists = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and not name.startswith(tuple(f"{path}." for path in component.unused_modules))
        and any("atten" in child or "attn" in child for child, _ in module[0].named_modules())
    }
    assert lists == {block.path.removesuffix(".*") for block in component.blocks}


@for_each_component
def test_all_attention_and_feed_forward_linears_are_quantized(component: Component) -> None:
    model = make_meta_model(component)
    for block in component.blocks:
        for path, copy in list_copies(model, block).items():
            linears = {
                name
                for name, module in copy.named_modules()
                if isinstance(module, nn.Linear)
                and name.split(".")[0] in ("attention", "feed_forward", "self_attn", "mlp")
            }
            assert set(block.linears) == linears, path


@for_each_component
def test_gqa_config_keys_are_keys_of_the_config(component: Component) -> None:
    config: Any = make_meta_model(component).config
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    for block in component.blocks:
        for fold in block.folds:
            assert all(hasattr(config, key) for key in fold.gqa_config_keys or ())


def test_last_layer_of_the_text_encoder_is_unused() -> None:
    """The pipeline reads hidden_states[-2], which the last layer does not change."""
    component = get_family("ZImagePipeline").component("text_encoder")
    assert component is not None
    torch.manual_seed(0)
    model = make_qwen3().eval()
    expected = run(component, model)
    layers = list(list_copies(model, component.blocks[-1]).values())
    for layer in layers[len(layers) - component.unused_blocks :]:
        for parameter in layer.parameters():
            parameter.data.zero_()
    assert torch.equal(run(component, model), expected)
    layers[len(layers) - component.unused_blocks - 1].get_submodule("mlp.down_proj").weight.data.zero_()
    assert not torch.equal(run(component, model), expected)


def test_decoding_never_runs_unused_modules() -> None:
    from diffusers import AutoencoderKL

    component = get_family("ZImagePipeline").component("vae")
    assert component is not None
    model = AutoencoderKL(block_out_channels=(32,), norm_num_groups=8).eval()
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model.decode(latents).sample.clone()
        for path in component.unused_modules:
            for parameter in model.get_submodule(path).parameters():
                parameter.fill_(float("nan"))
        assert torch.equal(model.decode(latents).sample, before)


def make_random_model(component: Component) -> nn.Module:
    """Makes a small model of the component's class, with seeded weights of which every layer affects the output."""
    torch.manual_seed(0)
    model: nn.Module = EXAMPLES[component.model_class]().eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5)
        elif "norm" not in name:
            nn.init.normal_(parameter, std=0.3)
    return model


def run(component: Component, model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return RUNS[component.model_class](model).clone()


def list_chains(component: Component) -> list[tuple[str, ShiftChain]]:
    model = make_meta_model(component)
    return [(path, chain) for block in component.blocks for path in list_copies(model, block) for chain in block.chains]


@for_each_component
def test_chains_consist_of_quantized_linears_each_in_one_chain(component: Component) -> None:
    for block in component.blocks:
        linears = [linear for chain in block.chains for linear in chain.linears]
        assert linears
        assert len(linears) == len(set(linears))
        assert set(linears) <= set(block.linears)


@pytest.mark.slow
@for_each_component
def test_shift_along_a_chain_cancels(component: Component) -> None:
    """At any linear of a chain; if no norm cancels the shift, the last linear multiplies it back."""
    model = make_random_model(component)
    expected = run(component, model)
    for path, chain in list_chains(component):
        linears = [model.get_submodule(f"{path}.{linear}") for linear in chain.linears]
        for number, linear in enumerate(chain.linears[: len(linears) - (not chain.cancelled_by_norm)]):
            for factor in (2.0**10, 2.0**-10):
                with torch.no_grad():
                    for parameter in linears[number].parameters():  # a bias is divided with the rows
                        parameter *= factor
                    linears[-1].weight *= 1.0 if chain.cancelled_by_norm else 1 / factor
                if factor > 1:
                    error = (run(component, model) - expected).norm() / expected.norm()
            assert error < 1e-3, f"{path}.{linear}: {error:.2e}"


@for_each_component
def test_shift_without_the_last_linear_changes_the_output(component: Component) -> None:
    """If no norm cancels the shift, and the last linear does not multiply it back."""
    model = make_random_model(component)
    expected = run(component, model)
    used_blocks = len(list_copies(model, component.blocks[-1])) - component.unused_blocks
    for path, chain in list_chains(component):
        if not chain.cancelled_by_norm and int(path.rsplit(".")[-1]) < used_blocks:
            weight = model.get_submodule(f"{path}.{chain.linears[0]}").weight
            with torch.no_grad():
                weight *= 2.0**10
                error = (run(component, model) - expected).norm() / expected.norm()
                weight *= 2.0**-10
            if len(chain.linears) > 1:
                assert error > 1e-1, f"{path}.{chain.linears[0]}"


@for_each_component
def test_weight_prefixes_of_wrapper_classes(component: Component) -> None:
    library = importlib.import_module("transformers")
    names = set(make_meta_model(component).state_dict())
    for wrapper, prefix in component.weight_prefixes:
        with torch.device("meta"):
            stored = getattr(library, wrapper)(make_meta_model(component).config).state_dict()
        assert {name.removeprefix(prefix) for name in stored if name.startswith(prefix)} == names


@for_each_component
def test_embeddings_are_token_embeddings(component: Component) -> None:
    model = make_meta_model(component)
    for name in component.embeddings:
        assert type(model.get_submodule(name)) is nn.Embedding
