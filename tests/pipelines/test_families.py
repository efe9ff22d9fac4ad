"""Which classes of diffusers make images from text alone, on signatures like theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from edgepress.pipelines.families import makes_images_from_text


@dataclass
class ToyOutput:
    images: Any


class TextToImage:
    def __init__(self, transformer: Any) -> None: ...

    def __call__(self, prompt: Any = None, image: Any = None) -> ToyOutput: ...


class NeedsEmbeddings(TextToImage):
    def __call__(self, prompt: Any, image_embeds: Any) -> ToyOutput: ...  # type: ignore[override]


class Videos(TextToImage):
    def __call__(self, prompt: Any = None, num_frames: int = 16) -> ToyOutput: ...  # type: ignore[override]


class Objects(TextToImage):
    def __call__(self, prompt: Any = None, frame_size: int = 64) -> ToyOutput: ...  # type: ignore[override]


def test_a_class_with_an_optional_image_makes_images_from_text() -> None:
    assert makes_images_from_text(TextToImage)


@pytest.mark.parametrize("cls", [NeedsEmbeddings, Videos, Objects])
def test_what_needs_more_than_a_prompt_or_makes_something_else_does_not(cls: type) -> None:
    assert not makes_images_from_text(cls)
