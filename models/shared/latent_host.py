"""The part of a host that the sizes of images, latents and patches decide."""

from __future__ import annotations

from ..base.default_host import DefaultHost
from ..base.image_size import require_size

DEFAULT_RESOLUTION = 1024  # pixels: what pipelines generate if neither a config nor a caller names a size


class LatentHost(DefaultHost):
    """A host of a pipeline that denoises latents in patches, for batch size 1.

    Args:
        channels: Channels of the latents.
        vae_scale: Pixels of a latent's side.
        patch_size: Rows and columns of latents in a patch.
        native_resolution: Side in pixels of the images that the pipeline was trained for.
        max_patches: The largest numbers of rows and columns of patches; None if there are no largest ones.
    """

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
