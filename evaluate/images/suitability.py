"""What a metric needs of an image. An image that lacks it has no score, and a reason in its row."""

from __future__ import annotations

from ...common.errors import UserError
from .types import ImageArray

MAX_ASPECT_RATIO = 50  # of longer to shorter side


class UnsuitableImageError(UserError):
    """A metric is not defined for an image. The message is the reason, without a final period."""


def require_side(image: ImageArray, min_side: int, need: str) -> None:
    """Refuses an image whose shorter side has fewer than `min_side` pixels.

    Args:
        image: The image.
        min_side: The smallest side that is accepted, in pixels.
        need: What needs this many pixels, such as `the 11x11 window of SSIM`.

    Raises:
        UnsuitableImageError: The image is smaller.
    """
    height, width = image.shape[:2]
    if min(height, width) < min_side:
        raise UnsuitableImageError(f"an image of {width}x{height} pixels is smaller than {need}")


def require_compact(image: ImageArray, limit: str) -> None:
    """Refuses an image that is more than `MAX_ASPECT_RATIO` times as long as wide.

    Args:
        image: The image.
        limit: What is the matter with such images, such as `CLIP sees only the central square`.

    Raises:
        UnsuitableImageError: The image is more elongated.
    """
    height, width = image.shape[:2]
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise UnsuitableImageError(
            f"an image of {width}x{height} pixels is more than {MAX_ASPECT_RATIO} times as long as wide, and {limit}"
        )
