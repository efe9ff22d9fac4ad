"""What hosts say of their pipelines by configs alone."""

import pytest

from edgepress.models.base.host import load_host
from edgepress.models.registry import get_family

VAE = {"block_out_channels": [8, 8], "scaling_factor": 1.0}
ENCODER = {"max_position_embeddings": 77}


@pytest.mark.parametrize("is_distilled", [True, False])
def test_whether_a_guidance_scale_changes_anything(is_distilled: bool) -> None:
    """The schnell variant of FLUX.1 takes none, and FLUX.2 klein none where it was distilled into few steps."""
    transformer = {"in_channels": 16, "axes_dims_rope": [4, 6, 6], "guidance_embeds": is_distilled}
    flux = load_host(get_family("FluxPipeline"), {"transformer": transformer, "vae": VAE, "text_encoder": ENCODER})
    assert flux.takes_guidance == flux.needs_guidance == is_distilled
    transformer = {"in_channels": 16, "axes_dims_rope": [4, 4, 4, 4], "rope_theta": 2000}
    configs = {"transformer": transformer, "vae": VAE, "pipeline": {"is_distilled": is_distilled}}
    klein = load_host(get_family("Flux2KleinPipeline"), configs)
    assert klein.takes_guidance != is_distilled
    assert not klein.needs_guidance
    assert klein.is_guided(4.0) != is_distilled


@pytest.mark.parametrize(("sample_size", "side"), [(64, 128), (96, 192), (None, 1024), ([64, 64], 1024)])
def test_the_native_size_is_that_of_the_denoiser(sample_size: object, side: int) -> None:
    """SDXL-Turbo makes 512 pixels with the VAE of SDXL, which says 1024."""
    unet = {"in_channels": 4, "sample_size": sample_size}
    configs = {"unet": unet, "vae": VAE | {"sample_size": 1024}, "text_encoder": ENCODER, "text_encoder_2": ENCODER}
    assert load_host(get_family("StableDiffusionXLPipeline"), configs).native_resolution == side
