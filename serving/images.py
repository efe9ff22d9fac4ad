"""What clients ask for and get: images with their format and facts."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace

from pydantic import BaseModel, Field

from ..runtime.generation_request import GenerationRequest
from ..runtime.image_file import ImageFormat, media_type


@dataclass(frozen=True)
class ImageRequest:
    """An image to generate and encode.

    Attributes:
        generation: The image.
        format: The format of the file.
        quality: 1 to 100, for JPEG and WebP.
        warnings: What the client should know, in sentences.
        start_sha256: The digest of the image to start from, before it was scaled; empty if there is none.
    """

    generation: GenerationRequest
    format: ImageFormat
    quality: int
    warnings: tuple[str, ...] = ()
    start_sha256: str = ""

    def with_seed(self, seed: int) -> ImageRequest:
        """The same request with another seed."""
        return replace(self, generation=replace(self.generation, seed=seed))


class ImageFacts(BaseModel):
    """How an image was generated."""

    seed: int = Field(description="The seed of the noise.")
    steps: int = Field(description="Number of denoising steps.")
    width: int = Field(description="Width in pixels.")
    height: int = Field(description="Height in pixels.")
    format: ImageFormat = Field(description="The format of the file.")
    seconds: float = Field(description="Seconds that generating took.")
    warnings: list[str] = Field(description="What the prompt's author should know, in sentences.")


@dataclass(frozen=True)
class EncodedImage:
    """An image.

    Attributes:
        content: The content of the file.
        facts: How it was generated.
    """

    content: bytes
    facts: ImageFacts

    @property
    def media_type(self) -> str:
        """Its media type, such as `image/png`."""
        return media_type(self.facts.format)

    def to_base64(self) -> str:
        """The content of the file in base64."""
        return base64.b64encode(self.content).decode("ascii")

    def to_data_url(self) -> str:
        """The image as a URL."""
        return f"data:{self.media_type};base64,{self.to_base64()}"
