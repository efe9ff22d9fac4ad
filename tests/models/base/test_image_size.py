"""Sizes of images, against the pipelines' own arithmetic and the memory that torch itself allocates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgepress.common.errors import UserError
from edgepress.models.base.family import Family
from edgepress.models.base.image_size import check_image_size, estimate_min_memory, require_size
from edgepress.pipelines.hub import DEMO_PIPELINE

FAMILY = Family("SomePipeline", "transformer", patch_size=2, max_patches_key="pos_embed_max_size")
VAE = {"block_out_channels": [8, 8, 8, 8], "latent_channels": 4}  # halves three times: patches of 16 pixels


def sizes(maximum: int) -> st.SearchStrategy[int]:
    return st.integers(-maximum, maximum)


@given(sizes(64), sizes(64), st.integers(1, 16), st.integers(1, 8), st.integers(1, 8))
def test_a_size_is_accepted_if_whole_patches_fill_it(
    height: int, width: int, multiple: int, rows: int, columns: int
) -> None:
    fits = height in range(multiple, rows * multiple + 1, multiple)
    fits = fits and width in range(multiple, columns * multiple + 1, multiple)
    if fits:
        require_size(height, width, multiple, (rows, columns))
        return
    with pytest.raises(UserError, match=f"^Invalid image size {height}x{width}:"):
        require_size(height, width, multiple, (rows, columns))


def test_without_a_table_no_size_is_too_large() -> None:
    require_size(16 * 10**6, 16, 16, None)
    with pytest.raises(UserError, match="positive multiples of 16"):
        require_size(0, 16, 16, None)


@pytest.mark.parametrize(("height", "width", "valid"), [(512, 16, True), (528, 16, False), (16, 528, False)])
def test_a_family_without_a_host_is_checked_by_its_configs(height: int, width: int, valid: bool) -> None:
    configs: dict[str, Any] = {"vae": VAE, "transformer": {"pos_embed_max_size": 32}}
    if valid:
        check_image_size(FAMILY, configs, height, width)
        return
    with pytest.raises(UserError, match="position tables end at 512x512"):
        check_image_size(FAMILY, configs, height, width)


def test_another_vae_is_named_as_the_reason() -> None:
    with pytest.raises(UserError, match="no AutoencoderKL"):
        check_image_size(FAMILY, {"vae": {"encoder_block_out_channels": [8]}}, 64, 64)


def test_the_tables_end_where_the_transformer_itself_fails() -> None:
    """Row 64 of a table of 64 rows."""
    import torch
    from diffusers.models.transformers.transformer_z_image import RopeEmbedder

    config = json.loads((DEMO_PIPELINE / "transformer" / "config.json").read_text("utf-8"))
    embedder = RopeEmbedder(config["rope_theta"], config["axes_dims"], config["axes_lens"])
    embedder(torch.tensor([[0, 1024 // 16 - 1, 0]]))
    with pytest.raises(IndexError):
        embedder(torch.tensor([[0, 1040 // 16 - 1, 0]]))


def test_the_estimate_is_below_what_decoding_really_takes(tiny: Path) -> None:
    """The VAE's own allocations, counted by torch's profiler."""
    import torch
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(tiny / "vae", torch_dtype=torch.bfloat16)
    with torch.no_grad(), torch.profiler.profile(profile_memory=True) as profile:
        vae.decode(torch.zeros(1, 16, 32, 32, dtype=torch.bfloat16))
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert 0 < estimate_min_memory({"vae": dict(vae.config)}, 256, 256) <= 2 * largest


def test_tiles_take_less_than_whole_images() -> None:
    whole, tiled = (estimate_min_memory({"vae": VAE}, 1024, 1024, decodes_whole) for decodes_whole in (True, False))
    assert 0 < tiled < whole


@pytest.mark.parametrize("values", [{"latent_channels": "four"}, {"block_out_channels": [[8], 8]}])
def test_numbers_that_are_none_are_not_repeated_by_the_pixels(values: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        estimate_min_memory({"vae": VAE | values}, 2**20, 2**20)
