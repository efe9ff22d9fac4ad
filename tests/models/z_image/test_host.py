"""The host against the patches, positions and tables of the transformer, and the images of the pipeline."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ZImageTransformer2DModel
from diffusers.image_processor import VaeImageProcessor
from helpers.torch_graphs import make_torch_runner, read_host_configs

from edgepress.common.errors import UserError
from edgepress.models.base.host import load_host, run_first_outputs
from edgepress.models.base.prompt_tokens import PromptTokens
from edgepress.models.registry import get_family
from edgepress.models.shared.latents import patchify, unpatchify
from edgepress.models.shared.rotary_tables import RotaryTables
from edgepress.models.z_image.host import (
    ZImageHost,
    make_caption_positions,
    make_image_positions,
    pad_to_multiple,
)
from edgepress.pipelines.sampling import load_pipeline

SIZES = [(64, 64), (32, 96), (96, 32), (80, 48), (112, 208)]  # 16, 12, 12, 15 and 91 tokens


@pytest.fixture(scope="module")
def pipeline(tiny: Path) -> Any:
    return load_pipeline(tiny, torch.float32)


@pytest.fixture(scope="module")
def host(tiny: Path) -> ZImageHost:
    return ZImageHost(read_host_configs(tiny))


def encode(host: ZImageHost, run: Any, ids: np.ndarray) -> Any:
    return host.encode_prompt(run, {"tokenizer": PromptTokens(ids)})


def make_noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@dataclasses.dataclass
class Sequences:
    """The inputs that the transformer derives from an image and a prompt, before any weight."""

    patches: torch.Tensor
    image_ids: torch.Tensor
    caption_ids: torch.Tensor
    image_pad: torch.Tensor
    caption_pad: torch.Tensor
    caption: torch.Tensor


def make_sequences(model: ZImageTransformer2DModel, latents: torch.Tensor, caption: torch.Tensor) -> Sequences:
    patches, captions, _, image_ids, caption_ids, image_pad, caption_pad = model.patchify_and_embed(
        [latents[0][:, None]], [caption], 2, 1
    )
    return Sequences(
        patches[0], image_ids[0], caption_ids[0], image_pad[0], caption_pad[0], captions[0]
    )  # fmt: skip


# ---------------------------------------------------------------- tables


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("length", [1, 31, 32, 33, 500])
def test_patches_pads_and_positions_equal_diffusers(pipeline: Any, height: int, width: int, length: int) -> None:
    latents, caption = make_noise(1, 16, height // 8, width // 8), make_noise(length, 128)
    expected = make_sequences(pipeline.transformer, latents, caption)
    patches, pad = pad_to_multiple(patchify(latents.numpy(), 2))
    assert np.array_equal(patches, expected.patches.numpy())
    assert np.array_equal(pad[:, 0], expected.image_pad.numpy())
    states, caption_pad = pad_to_multiple(caption.numpy())
    assert np.array_equal(states, expected.caption.numpy())
    assert np.array_equal(caption_pad[:, 0], expected.caption_pad.numpy())
    assert np.array_equal(make_caption_positions(len(states)), expected.caption_ids[: len(states)].numpy())
    positions = make_image_positions(height // 16, width // 16, len(states))
    assert np.array_equal(positions, expected.image_ids.numpy())


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_unpatchify_equals_diffusers(pipeline: Any, height: int, width: int) -> None:
    rows, columns = height // 8, width // 8
    patches = make_noise(rows * columns // 4, 64)
    (expected,) = pipeline.transformer.unpatchify([patches], [(1, rows, columns)], 2, 1)
    latents = unpatchify(patches.numpy(), (1, 16, rows, columns), 2)
    assert np.array_equal(latents[0], expected[:, 0].numpy())
    assert np.array_equal(patchify(latents, 2), patches.numpy())


@pytest.mark.parametrize(
    ("widths", "lengths", "theta"), [([16, 24, 24], [1024, 64, 64], 256.0), ([32, 48, 48], [1536, 512, 512], 256.0)]
)
def test_rotary_tables_equal_diffusers(widths: list[int], lengths: list[int], theta: float) -> None:
    """To the second to last bit, at every position of the published model."""
    from diffusers.models.transformers.transformer_z_image import RopeEmbedder

    ids = torch.stack([torch.arange(lengths[0]) % length for length in lengths], 1)
    expected = RopeEmbedder(theta, widths, lengths)(ids)
    cos, sin = RotaryTables(tuple(widths), theta).compute(ids.numpy())
    assert cos.dtype == sin.dtype == np.float32
    assert np.abs(cos - expected.real.numpy()).max() < 2e-7
    assert np.abs(sin - expected.imag.numpy()).max() < 2e-7


# ---------------------------------------------------------------- sizes


def test_latent_shape_equals_diffusers(host: ZImageHost, pipeline: Any) -> None:
    expected = pipeline.prepare_latents(1, 16, 80, 48, torch.float32, "cpu", torch.Generator())
    assert host.latent_shape(80, 48) == tuple(expected.shape)
    assert host.count_image_tokens(80, 48) == 15
    assert host.native_resolution == pipeline.vae.config.sample_size


@pytest.mark.parametrize(("height", "width"), [(65, 64), (64, 8), (8, 8), (0, 64), (64, -16)])
def test_invalid_size(host: ZImageHost, height: int, width: int) -> None:
    with pytest.raises(UserError, match=rf"Invalid image size {height}x{width}: .* multiples of 16"):
        host.latent_shape(height, width)


@pytest.mark.parametrize(
    ("key", "value"), [("shift_factor", 1e308), ("scaling_factor", 10.0**39), ("scaling_factor", 0)]
)
def test_factors_that_float32_cannot_use(tiny: Path, key: str, value: float) -> None:
    """They made black images."""
    configs = read_host_configs(tiny)
    configs = {**configs, "vae": {**configs["vae"], key: value}}
    with pytest.raises(ValueError, match=key):
        ZImageHost(configs)


# ---------------------------------------------------------------- around the graphs


@pytest.mark.parametrize("length", [1, 31, 32, 33, 200])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_velocity_equals_diffusers_with_the_sign_reversed(
    host: ZImageHost, pipeline: Any, height: int, width: int, length: int
) -> None:
    ids = torch.arange(length) % 250
    latents = make_noise(*host.latent_shape(height, width), seed=1)
    timestep = torch.tensor(731.25)
    with torch.no_grad():
        hidden = pipeline.text_encoder(ids[None], output_hidden_states=True).hidden_states[-2][0]
        output = pipeline.transformer([latents[0][:, None]], ((1000 - timestep) / 1000)[None], [hidden]).sample
    run = make_torch_runner(pipeline)
    velocity = host.predict_velocity(run, latents.numpy(), float(timestep), encode(host, run, ids.numpy()))
    assert velocity.dtype == np.float32
    expected = -output[0][None, :, 0].numpy()
    assert np.linalg.norm(velocity - expected) / np.linalg.norm(expected) < 1e-5


def test_unmarked_pads_change_the_velocity(host: ZImageHost, pipeline: Any) -> None:
    """So the test above would detect a mistake there."""
    run, ids = make_torch_runner(pipeline), np.arange(5)
    latents = make_noise(*host.latent_shape(80, 48)).numpy()

    def run_unmarked(name: str, inputs: dict[str, Any]) -> Any:
        return run(name, {key: 0 * value if key == "pad" else value for key, value in inputs.items()})

    expected = host.predict_velocity(run, latents, 500.0, encode(host, run, ids))
    unmarked = run_first_outputs(run_unmarked)
    velocity = host.predict_velocity(unmarked, latents, 500.0, encode(host, unmarked, ids))
    assert np.linalg.norm(velocity - expected) / np.linalg.norm(expected) > 1e-2


def test_8_bit_image_equals_diffusers(host: ZImageHost) -> None:
    image = torch.linspace(-1.3, 1.3, 3 * 64 * 64).reshape(1, 3, 64, 64)
    (expected,) = VaeImageProcessor().postprocess(image)
    decoded = host.decode_latents(lambda _, __: image.numpy(), np.zeros((1, 16, 8, 8), np.float32))
    assert np.array_equal(decoded, np.asarray(expected))


def test_decoded_latents_equal_diffusers(host: ZImageHost, pipeline: Any) -> None:
    latents = make_noise(1, 16, 8, 8)
    config = pipeline.vae.config
    with torch.no_grad():
        image = pipeline.vae.decode(latents / config.scaling_factor + config.shift_factor).sample
    (expected,) = VaeImageProcessor().postprocess(image)
    decoded = host.decode_latents(make_torch_runner(pipeline), latents.numpy()).astype(int)
    assert np.abs(decoded - np.asarray(expected).astype(int)).max() <= 1


def test_family_names_this_host(tiny: Path) -> None:
    assert isinstance(load_host(get_family("ZImagePipeline"), read_host_configs(tiny)), ZImageHost)
