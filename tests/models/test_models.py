"""What is said of each family, held against the classes that it describes."""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import pytest
import torch
from torch import nn

from edgepress.common.errors import UserError
from edgepress.models.base.family import Block, Component, Fold, ShiftChain
from edgepress.models.registry import get_family, load_families

GQA = {"num_attention_heads": 4, "num_key_value_heads": 2}


def z_image() -> Any:
    from diffusers import ZImageTransformer2DModel

    return ZImageTransformer2DModel(
        dim=384, n_heads=6, n_kv_heads=6, n_layers=2, n_refiner_layers=1, cap_feat_dim=128,
        axes_dims=[16, 24, 24], axes_lens=[256, 64, 64],
    )  # fmt: skip


def qwen3() -> Any:
    from transformers import Qwen3Config, Qwen3Model

    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 3, "head_dim": 32, "vocab_size": 32}
    return Qwen3Model(Qwen3Config(**sizes, **GQA))


def denoise(model: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    latents, text = torch.randn(16, 1, 8, 8, generator=generator), torch.randn(10, 128, generator=generator)
    found: torch.Tensor = model([latents], torch.tensor([0.5]), [text], return_dict=False)[0][0]
    return found


def read(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(torch.arange(6)[None], output_hidden_states=True).hidden_states[-2]
    return found


EXAMPLES = {"ZImageTransformer2DModel": z_image, "Qwen3Model": qwen3}
RUNS = {"ZImageTransformer2DModel": denoise, "Qwen3Model": read}
COMPONENTS = [component for family in load_families().values() for component in family.components if component.blocks]
pressed = pytest.mark.parametrize("component", COMPONENTS, ids=lambda component: component.model_class)


def example(component: Component) -> nn.Module:
    """A small model of the component's class, without memory."""
    with torch.device("meta"):
        model: nn.Module = EXAMPLES[component.model_class]()
    return model


def copies(model: nn.Module, block: Block) -> dict[str, nn.Module]:
    """The copies of a block in a model, by path."""
    stem = block.path.removesuffix(".*")
    return {f"{stem}.{index}": copy for index, copy in enumerate(model.get_submodule(stem))}


# ---------------------------------------------------------------- finding a family


def test_the_first_family_is_found_by_its_pipeline() -> None:
    family = get_family("ZImagePipeline")
    assert [component.name for component in family.components] == ["text_encoder", "transformer", "vae"]


def test_an_unknown_pipeline_is_answered_with_those_that_are_known() -> None:
    with pytest.raises(UserError, match=r"'StableDiffusionPipeline' is unknown here; known: .*ZImagePipeline"):
        get_family("StableDiffusionPipeline")


def test_every_family_is_of_a_pipeline_that_diffusers_has() -> None:
    diffusers = importlib.import_module("diffusers")
    assert load_families()
    assert [name for name in load_families() if not hasattr(diffusers, name)] == []


def test_a_component_is_found_by_its_name() -> None:
    family = get_family("ZImagePipeline")
    transformer = family.component("transformer")
    assert transformer is not None
    assert transformer.name == "transformer"
    assert family.component("scheduler") is None


def test_a_family_is_data_that_cannot_be_changed() -> None:
    family = get_family("ZImagePipeline")
    for value, field in [
        (family, "pipeline"),
        (family.components[0], "unread"),
        (family.components[0].blocks[0], "path"),
    ]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field, None)


def test_the_linears_of_a_block_are_those_that_folds_lead_into() -> None:
    block = Block("layers.*", (Fold("norm", ("q", "k"), "norm"), Fold("v", ("out",), "rows")))
    assert block.linears == ("q", "k", "out")


def test_the_denoiser_is_one_of_the_components() -> None:
    for family in load_families().values():
        assert family.component(family.denoiser) is not None


# ---------------------------------------------------------------- data against the classes


@pressed
def test_every_name_leads_to_a_module_of_the_right_kind_and_width(component: Component) -> None:
    model = example(component)
    for block in component.blocks:
        for path, copy in copies(model, block).items():
            for fold in block.folds:
                source = copy.get_submodule(fold.prev_op)
                readers = [copy.get_submodule(name) for name in fold.linears]
                assert all(isinstance(reader, nn.Linear) for reader in readers), f"{path}: {fold}"
                widths = {reader.in_features for reader in readers if isinstance(reader, nn.Linear)}
                if fold.kind == "norm":
                    assert "Norm" in type(source).__name__, f"{path}: {fold.prev_op} is no norm"
                    assert getattr(source, "bias", None) is None, f"{path}: {fold.prev_op} shifts"
                    assert widths == {source.weight.shape[0]}, f"{path}: {fold}"
                else:
                    assert isinstance(source, nn.Linear), f"{path}: {fold.prev_op} is no linear"
                    shared = fold.gqa_config_keys
                    repeat = GQA[shared[0]] // GQA[shared[1]] if shared else 1
                    assert widths == {source.out_features * repeat}, f"{path}: {fold}"


@pressed
def test_no_linear_is_folded_into_twice(component: Component) -> None:
    for block in component.blocks:
        assert len(block.linears) == len(set(block.linears))


@pressed
def test_every_repeated_block_of_the_model_is_known(component: Component) -> None:
    """A ModuleList of blocks with attention that no path names would silently stay in 16 bits."""
    model = example(component)
    lists = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList)
        and any("atten" in child or "attn" in child for child, _ in module[0].named_modules())
    }
    assert lists == {block.path.removesuffix(".*") for block in component.blocks}


@pressed
def test_all_attention_and_feed_forward_linears_are_quantized(component: Component) -> None:
    model = example(component)
    for block in component.blocks:
        for path, copy in copies(model, block).items():
            inside = {
                name
                for name, module in copy.named_modules()
                if isinstance(module, nn.Linear)
                and name.split(".")[0] in ("attention", "feed_forward", "self_attn", "mlp")
            }
            assert set(block.linears) == inside, path


@pressed
def test_shared_heads_name_keys_of_the_models_config(component: Component) -> None:
    config: Any = example(component).config
    for block in component.blocks:
        for fold in block.folds:
            assert all(hasattr(config, key) for key in fold.gqa_config_keys or ())


def test_the_text_encoders_last_layer_is_not_read() -> None:
    """The pipeline takes hidden_states[-2], so a change of the last layer changes nothing that it reads."""
    component = get_family("ZImagePipeline").component("text_encoder")
    assert component is not None
    torch.manual_seed(0)
    model = qwen3().eval()
    tokens = torch.arange(6)[None]

    def read() -> torch.Tensor:
        with torch.no_grad():
            states: torch.Tensor = model(tokens, output_hidden_states=True).hidden_states[-2]
        return states.clone()

    before = read()
    layers = list(copies(model, component.blocks[-1]).values())
    for layer in layers[len(layers) - component.unused_blocks :]:
        for parameter in layer.parameters():
            parameter.data.zero_()
    assert torch.equal(read(), before)
    layers[len(layers) - component.unused_blocks - 1].get_submodule("mlp.down_proj").weight.data.zero_()
    assert not torch.equal(read(), before)


def test_from_text_to_image_the_vae_never_runs_what_is_dropped() -> None:
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


def real(component: Component) -> nn.Module:
    """A small model of the component's class with weights that let every layer speak, the same each time."""
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


def chains_of(component: Component) -> list[tuple[str, ShiftChain]]:
    model = example(component)
    return [(path, chain) for block in component.blocks for path in copies(model, block) for chain in block.chains]


@pressed
def test_chains_are_of_quantized_linears_each_in_one(component: Component) -> None:
    for block in component.blocks:
        linears = [linear for chain in block.chains for linear in chain.linears]
        assert linears
        assert len(linears) == len(set(linears))
        assert set(linears) <= set(block.linears)


@pressed
def test_a_power_of_two_travels_along_a_chain_and_is_gone_at_its_end(component: Component) -> None:
    """Divided out at any linear of a chain; what is not cancelled is multiplied back by the last one."""
    model = real(component)
    expected = run(component, model)
    for path, chain in chains_of(component):
        weights = [model.get_submodule(f"{path}.{linear}").weight for linear in chain.linears]
        for number, linear in enumerate(chain.linears[: len(weights) - (not chain.cancelled_by_norm)]):
            with torch.no_grad():
                weights[number] *= 2.0**10
                weights[-1] *= 1.0 if chain.cancelled_by_norm else 2.0**-10
            error = (run(component, model) - expected).norm() / expected.norm()
            with torch.no_grad():
                weights[number] *= 2.0**-10
                weights[-1] *= 1.0 if chain.cancelled_by_norm else 2.0**10
            assert error < 1e-3, f"{path}.{linear}: {error:.2e}"


@pressed
def test_what_travels_along_a_chain_would_show_if_it_were_not_gone(component: Component) -> None:
    """A chain that is not cancelled needs its last linear: without it the output is another one."""
    model = real(component)
    expected = run(component, model)
    read_blocks = len(copies(model, component.blocks[-1])) - component.unused_blocks
    for path, chain in chains_of(component):
        if not chain.cancelled_by_norm and int(path.rsplit(".")[-1]) < read_blocks:
            weight = model.get_submodule(f"{path}.{chain.linears[0]}").weight
            with torch.no_grad():
                weight *= 2.0**10
                error = (run(component, model) - expected).norm() / expected.norm()
                weight *= 2.0**-10
            if len(chain.linears) > 1:
                assert error > 1e-1, f"{path}.{chain.linears[0]}"


@pressed
def test_a_class_that_wraps_the_model_puts_its_prefix_before_every_name(component: Component) -> None:
    library = importlib.import_module("transformers")
    names = set(example(component).state_dict())
    for wrapper, prefix in component.weight_prefixes:
        with torch.device("meta"):
            stored = getattr(library, wrapper)(example(component).config).state_dict()
        assert {name.removeprefix(prefix) for name in stored if name.startswith(prefix)} == names


@pressed
def test_embeddings_are_looked_up_by_token(component: Component) -> None:
    model = example(component)
    for name in component.embeddings:
        assert type(model.get_submodule(name)) is nn.Embedding
