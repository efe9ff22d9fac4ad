"""Which images a pipeline can generate, by arithmetic on its configs: multiples of patches, position tables, memory."""

from __future__ import annotations

from collections.abc import Mapping
from operator import index
from typing import Any

from ...common.errors import UserError
from .family import Family
from .host import load_host

Configs = Mapping[str, Mapping[str, Any]]
FLOAT_BYTES = 2  # the narrowest floats that images are computed in


def check_image_size(family: Family, configs: Configs, height: int, width: int) -> None:
    """Checks an image size against a pipeline's patches and position tables.

    Args:
        family: The pipeline's family.
        configs: Configs of the components, by folder name.
        height: Height in pixels.
        width: Width in pixels.

    Raises:
        UserError: The pipeline cannot generate such images, or its VAE has an unknown class.
    """
    if family.host:
        load_host(family, configs).latent_shape(height, width)
        return
    blocks = configs.get("vae", {}).get("block_out_channels")
    if blocks is None:
        raise UserError("The component 'vae' is no AutoencoderKL. Use a pipeline that has one.")
    if not blocks:
        raise ValueError("block_out_channels is []")
    multiple = family.patch_size * 2 ** (len(blocks) - 1)
    max_patches = configs.get(family.denoiser, {}).get(family.max_patches_key) if family.max_patches_key else None
    require_size(height, width, multiple, None if max_patches is None else (max_patches, max_patches))


def read_patch_size(value: Any) -> int:
    """A patch's side in latent pixels, as a config has it.

    Raises:
        ValueError: It is no positive whole number.
    """
    if type(value) is not int or value < 1:
        raise ValueError(f"the side of a patch is {value!r} instead of a positive whole number")
    return value


def require_size(height: int, width: int, multiple: int, max_patches: tuple[int, int] | None) -> None:
    """Checks an image size.

    Args:
        height: Height in pixels.
        width: Width in pixels.
        multiple: Pixels of a patch's side.
        max_patches: The largest numbers of rows and columns of patches; None if there are no largest ones.

    Raises:
        UserError: A side is no positive multiple, or larger.
        ValueError: No image has room in the position tables.
    """
    if height % multiple or width % multiple or min(height, width) <= 0:
        raise UserError(
            f"Invalid image size {height}x{width}: height and width must be positive multiples of {multiple}."
        )
    if max_patches is None:
        return
    rows, columns = max_patches
    if min(rows, columns) < 1:
        raise ValueError("the position tables leave no patch for an image")
    if height > rows * multiple or width > columns * multiple:
        raise UserError(
            f"Invalid image size {height}x{width}: the model's position tables end at {rows * multiple}x"
            f"{columns * multiple} pixels. Choose a smaller size."
        )


def estimate_min_memory(configs: Configs, height: int, width: int, decodes_whole: bool = True) -> int:
    """Estimates the least memory that generating an image takes, in bytes, besides the weights.

    It counts only what must exist at the same time in any implementation: the latents and, where the VAE decodes the
    image as a whole, input and output of its last convolutions.

    Args:
        configs: Configs of the components, by folder name.
        height: Height in pixels.
        width: Width in pixels.
        decodes_whole: Whether the VAE decodes or encodes an image as a whole, not in tiles.

    Raises:
        TypeError: A number in a config is none: a long text, repeated by the pixels, would fill the memory.
    """
    vae: Mapping[str, Any] = configs.get("vae", {})
    pixels = height * width
    blocks, channels = vae.get("block_out_channels") or [0], index(vae.get("latent_channels") or 0)
    latents: int = pixels * channels // 4 ** (len(blocks) - 1)
    features: int = 2 * pixels * index(blocks[0]) if decodes_whole else 3 * pixels
    return FLOAT_BYTES * max(2 * latents, features)
