"""The part of a host that the sizes of images, latents and patches decide, and how the VAE scales latents."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError
from ..base.default_host import DefaultHost
from ..base.host import RunGraph
from ..base.image_size import require_size
from .latents import decode_pixels, encode_pixels

DEFAULT_RESOLUTION = 1024  # pixels: what pipelines generate if neither a config nor a caller names a size


class LatentHost(DefaultHost):
    """A host of a pipeline that denoises latents in patches, for batch size 1.

    Args:
        channels: Channels of the latents.
        vae_scale: Pixels of a latent's side.
        patch_size: Rows and columns of latents in a patch.
        native_resolution: Side in pixels of the images that the pipeline was trained for.
        max_patches: The largest numbers of rows and columns of patches; None if there are no largest ones.

    Attributes:
        latent_scale: What the VAE's latents are multiplied by for the denoiser, once `latent_shift` is subtracted; a
            number, or one a channel (1, channels, 1, 1).
        latent_shift: What is subtracted from the VAE's latents before.
    """

    latent_scale: np.float32 | NDArray[np.float32] = np.float32(1)
    latent_shift: np.float32 | NDArray[np.float32] = np.float32(0)

    def __init__(
        self,
        channels: int,
        vae_scale: int,
        patch_size: int,
        native_resolution: int = DEFAULT_RESOLUTION,
        max_patches: tuple[int, int] | None = None,
    ) -> None:
        self._channels, self._vae_scale, self._patch_size = channels, vae_scale, patch_size
        self._native_resolution, self._max_patches = native_resolution, max_patches

    @property
    def native_resolution(self) -> int:
        """Side in pixels of the images that the pipeline was trained for."""
        return self._native_resolution

    @property
    def size_multiple(self) -> int:
        """Side of a patch in pixels."""
        multiple: int = self._vae_scale * self._patch_size
        return multiple

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Returns (1, channels, rows, columns).

        Raises:
            UserError: A side is not a multiple of a patch, or beyond the denoiser's position tables.
        """
        require_size(height, width, self.size_multiple, self._max_patches)
        return 1, self._channels, height // self._vae_scale, width // self._vae_scale

    def count_image_tokens(self, height: int, width: int) -> int:
        """Returns the number of patches of an image."""
        _, _, rows, columns = self.latent_shape(height, width)
        return rows * columns // self._patch_size**2

    def decode_latents(self, run: RunGraph, latents: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Decodes denoised latents to an image (height, width, 3)."""
        return decode_pixels(run(self.decoder_graph, {"latents": latents / self.latent_scale + self.latent_shift}))

    def encode_image(self, run: RunGraph, image: NDArray[np.uint8], noise: NDArray[np.float32]) -> NDArray[np.float32]:
        """Encodes an image (height, width, 3) to latents, drawn from their distribution with noise of their shape.

        Raises:
            UserError: The graph is of an earlier release, which had no deviations.
        """
        distribution = run(self.encoder_graph, {"image": encode_pixels(image)})
        if distribution.shape[1] != 2 * self._channels:
            raise UserError(f"An earlier release exported the graph {self.encoder_graph}. Export the artifact again.")
        mean, deviation = np.split(distribution, 2, axis=1)
        latents: NDArray[np.float32] = (mean + deviation * noise - self.latent_shift) * self.latent_scale
        return latents
