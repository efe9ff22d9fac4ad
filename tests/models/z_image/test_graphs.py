"""Z-Image's graph modules in torch, against the classes of diffusers and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.onnx_graphs import Inputs, build_graph_inputs, compute_velocity, enlarge_pad_tokens, load_component
from torch import Tensor, nn

from edgepress.models.shared.vae import VaeDecoder
from edgepress.models.z_image.graphs import ZImageTextEncoder, ZImageTextRefiner, ZImageTransformer

# Of the latents: square, wide, tall, one whose tokens are no multiple of 32, and fewer than 32.
SIZES = [(8, 8), (8, 32), (32, 16), (12, 14), (2, 4)]
PROMPTS = [1, 31, 32, 33, 200, 512]


@pytest.fixture(scope="module")
def reference(tiny: Path) -> Any:
    return enlarge_pad_tokens(load_component(tiny, "transformer"))


@pytest.fixture(scope="module")
def traced(tiny: Path) -> Any:
    """Another copy, since the modules modify the component."""
    return enlarge_pad_tokens(load_component(tiny, "transformer"))


def run(module: nn.Module, inputs: Inputs) -> Tensor:
    with torch.no_grad():
        output: Tensor = module(*(torch.from_numpy(value) for value in inputs.values()))
    return output


def predict_velocity(model: Any, captions: Inputs, patches: Inputs) -> Tensor:
    order = ("patches", "pad", "timestep", "caption", "image_cos", "image_sin", "caption_cos", "caption_sin")
    inputs = patches | {"caption": run(ZImageTextRefiner(model), captions).numpy()}
    return run(ZImageTransformer(model), {name: inputs[name] for name in order})


def make_noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tokens", PROMPTS)
def test_velocity_equals_diffusers(reference: Any, traced: Any, size: tuple[int, int], tokens: int) -> None:
    latents, text = make_noise(16, *size), make_noise(tokens, 128)
    _, expected = compute_velocity(reference, latents, text)
    velocity = predict_velocity(traced, *build_graph_inputs(reference, latents, text))[:, : expected.shape[1]]
    torch.testing.assert_close(velocity, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_unmarked_pads_change_the_velocity(reference: Any, traced: Any) -> None:
    """So the test above would detect a mistake there."""
    latents, text = make_noise(16, 12, 14), make_noise(33, 128)
    _, expected = compute_velocity(reference, latents, text)
    for number, name in ((0, "caption"), (1, "image")):
        inputs = build_graph_inputs(reference, latents, text)
        inputs[number]["pad"][:] = 0
        velocity = predict_velocity(traced, *inputs)[:, : expected.shape[1]]
        assert (velocity - expected).norm() > 1e-2 * expected.norm(), name


@pytest.mark.parametrize("tokens", PROMPTS)
def test_text_encoder_returns_the_last_but_one_hidden_states(tiny: Path, tokens: int) -> None:
    model = load_component(tiny, "text_encoder")
    ids = torch.arange(tokens)[None] % 250
    with torch.no_grad():
        expected = model(ids, output_hidden_states=True).hidden_states[-2]
        hidden = ZImageTextEncoder(model)(ids)
    torch.testing.assert_close(hidden, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_text_encoder_inside_a_causal_language_model(tiny: Path) -> None:
    from transformers import Qwen3ForCausalLM

    model = load_component(tiny, "text_encoder")
    wrapped = Qwen3ForCausalLM(model.config)
    wrapped.model = model
    assert set(ZImageTextEncoder(wrapped).state_dict()) == {f"model.{name}" for name in model.state_dict()}


def test_decoder_equals_diffusers(tiny: Path) -> None:
    model, latents = load_component(tiny, "vae"), make_noise(1, 16, 6, 10)
    with torch.no_grad():
        torch.testing.assert_close(VaeDecoder(model)(latents), model.decode(latents).sample)


@pytest.mark.parametrize("module_class", [ZImageTextRefiner, ZImageTransformer, ZImageTextEncoder, VaeDecoder])
def test_inputs_and_outputs_are_float32_for_bfloat16_weights(tiny: Path, module_class: Any) -> None:
    names = {ZImageTextEncoder: "text_encoder", VaeDecoder: "vae"}
    module = module_class(load_component(tiny, names.get(module_class, "transformer")).to(torch.bfloat16))
    inputs = module.example({"T": 5, "L": 32, "N": 64, "h": 4, "w": 6})
    assert {tensor.dtype for tensor in inputs} <= {torch.float32, torch.int64}
    with torch.no_grad():
        assert module(*inputs).dtype == torch.float32
