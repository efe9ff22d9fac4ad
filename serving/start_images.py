"""Images to start from: decoded, and scaled before their requests wait, so that a waiting one holds no large image."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import replace

from PIL.Image import Image

from ..common.errors import UserError
from ..runtime.image_file import read_image, scale_image
from ..runtime.image_metadata import hash_image
from .errors import ApiError
from .images import ImageRequest


def decode_start_image(text: str) -> Image:
    """Decodes the image of a field: base64, after the header of a data URL if it is one.

    Raises:
        ApiError: It is none.
    """
    try:
        return read_image(b64decode(text.rpartition(",")[2], validate=True))
    except binascii.Error as error:
        raise ApiError(
            422, f"image is no base64 ({error}). Send a PNG, JPEG or WebP file in base64.", "image"
        ) from error
    except UserError as error:
        raise ApiError(422, str(error), "image") from error


def scale_start_image(requests: Sequence[ImageRequest], image: Image) -> list[ImageRequest]:
    """Returns requests that start from an image with that image as small as the images that they ask for.

    Args:
        requests: Requests for images of one size.
        image: The image that they start from, whose digest their files name.
    """
    size = requests[0].generation.size
    scaled = image if size is None else scale_image(image, size)
    digest = hash_image(image)
    return [
        replace(request, generation=replace(request.generation, image=scaled), start_sha256=digest)
        for request in requests
    ]
