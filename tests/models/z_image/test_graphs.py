"""Z-Image's modules for graphs, as torch runs them, against the components' own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.onnx_graphs import Inputs, inputs_of, load, picture, with_large_pads
from torch import Tensor, nn

from edgepress.models.shared.vae import VaeDecoder
from edgepress.models.z_image.graphs import ZImageTextRefiner, ZImageTextEncoder, ZImageTransformer

# Of the latents: square, wide, tall, one whose tokens are no multiple of 32, and fewer than 32.
SIZES = [(8, 8), (8, 32), (32, 16), (12, 14), (2, 4)]
PROMPTS = [1, 31, 32, 33, 200, 512]


@pytest.fixture(scope="module")
def reference(tiny: Path) -> Any:
    return with_large_pads(load(tiny, "transformer"))


@pytest.fixture(scope="module")
def ours(tiny: Path) -> Any:
    """Another copy: the modules change what they are given."""
    return with_large_pads(load(tiny, "transformer"))


def run(module: nn.Module, inputs: Inputs) -> Tensor:
    with torch.no_grad():
        found: Tensor = module(*(torch.from_numpy(value) for value in inputs.values()))
    return found


def velocity(model: Any, captions: Inputs, patches: Inputs) -> Tensor:
    caption = run(ZImageTextRefiner(model), captions).numpy()
    order = ("patches", "pad", "timestep", "caption", "image_cos", "image_sin", "caption_cos", "caption_sin")
    whole = patches | {"caption": caption}
    return run(ZImageTransformer(model), {name: whole[name] for name in order})


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tokens", PROMPTS)
def test_caption_and_transformer_give_the_velocity_of_the_class(
    reference: Any, ours: Any, size: tuple[int, int], tokens: int
) -> None:
    latents, text = noise(16, *size), noise(tokens, 128)
    _, expected = picture(reference, latents, text)
    found = velocity(ours, *inputs_of(reference, latents, text))[:, : expected.shape[1]]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_pads_of_the_image_and_of_the_caption_matter(reference: Any, ours: Any) -> None:
    """With pads taken for tokens the velocity is another one, so the test above would see a mistake there."""
    latents, text = noise(16, 12, 14), noise(33, 128)
    _, expected = picture(reference, latents, text)
    for number, name in ((0, "caption"), (1, "image")):
        inputs = inputs_of(reference, latents, text)
        inputs[number]["pad"][:] = 0
        found = velocity(ours, *inputs)[:, : expected.shape[1]]
        assert (found - expected).norm() > 1e-2 * expected.norm(), name


@pytest.mark.parametrize("tokens", PROMPTS)
def test_the_text_encoder_gives_the_last_but_one_hidden_states(tiny: Path, tokens: int) -> None:
    model = load(tiny, "text_encoder")
    ids = torch.arange(tokens)[None] % 250
    with torch.no_grad():
        expected = model(ids, output_hidden_states=True).hidden_states[-2]
        found = ZImageTextEncoder(model)(ids)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_the_text_encoder_may_be_wrapped_in_a_language_model(tiny: Path) -> None:
    from transformers import Qwen3ForCausalLM

    model = load(tiny, "text_encoder")
    wrapped = Qwen3ForCausalLM(model.config)
    wrapped.model = model
    assert set(ZImageTextEncoder(wrapped).state_dict()) == {f"model.{name}" for name in model.state_dict()}


def test_the_decoder_decodes(tiny: Path) -> None:
    model, latents = load(tiny, "vae"), noise(1, 16, 6, 10)
    with torch.no_grad():
        torch.testing.assert_close(VaeDecoder(model)(latents), model.decode(latents).sample)


@pytest.mark.parametrize("half", [ZImageTextRefiner, ZImageTransformer, ZImageTextEncoder, VaeDecoder])
def test_inputs_and_outputs_are_float32_whatever_the_weights_are(tiny: Path, half: Any) -> None:
    names = {ZImageTextEncoder: "text_encoder", VaeDecoder: "vae"}
    module = half(load(tiny, names.get(half, "transformer")).to(torch.bfloat16))
    inputs = module.example({"T": 5, "L": 32, "N": 64, "h": 4, "w": 6})
    assert {tensor.dtype for tensor in inputs} <= {torch.float32, torch.int64}
    with torch.no_grad():
        assert module(*inputs).dtype == torch.float32
