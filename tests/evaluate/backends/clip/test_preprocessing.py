"""Images are prepared for CLIP as torchvision prepares them, whichever library runs the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from edgepress.common.errors import UserError
from edgepress.evaluate.backends.clip.preprocessing import (
    DEFAULT_MEAN,
    DEFAULT_STD,
    ClipPreprocessing,
    read_open_clip_config,
    read_processor,
)
from edgepress.evaluate.backends.clip.spec import parse_clip_spec
from edgepress.evaluate.backends.clip.transformers_backend import load, load_open_clip_folder
from edgepress.evaluate.images.suitability import UnsuitableImageError
from edgepress.evaluate.images.types import ImageArray

if TYPE_CHECKING:
    from .conftest import TinyClip

# Width, height, and where a square of 224 begins in the resized image: left, top. The resized size is torchvision's
# int(224 * long / short), the crop its int(round(margin / 2)), with Python's rounding of halves to even.
CROPS = [
    (640, 427, 56, 0),  # 335 wide, margin 111: 55.5 is rounded to 56, and down by transformers
    (427, 640, 0, 56),
    (641, 480, 38, 0),  # 299 wide, margin 75: 37.5
    (640, 480, 37, 0),  # 298 wide, margin 74
    (480, 640, 0, 37),
    (226, 224, 1, 0),
    (225, 224, 0, 0),  # margin 1: 0.5 is rounded to 0
    (224, 227, 0, 2),  # margin 3: 1.5 is rounded to 2
    (500, 500, 0, 0),
    (3, 1, 224, 0),
    (1, 1, 0, 0),
]


def make_image(width: int, height: int) -> ImageArray:
    return np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("width", "height", "left", "top"), CROPS)
def test_images_are_cropped_as_torchvision_does(width: int, height: int, left: int, top: int) -> None:
    image = make_image(width, height)
    size = (int(224 * width / height), 224) if height <= width else (224, int(224 * height / width))
    resized = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(resized.crop((left, top, left + 224, top + 224)), np.float32) / np.float32(255)
    expected = (pixels - np.float32(DEFAULT_MEAN)) / np.float32(DEFAULT_STD)
    tensor = read_open_clip_config({}, 224).apply(image)
    assert tensor.shape == (1, 3, 224, 224)
    assert tensor.dtype == torch.float32
    assert np.array_equal(tensor[0].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(("width", "height"), [(640, 427), (427, 640), (641, 480), (480, 480), (3, 5)])
def test_both_formats_prepare_an_image_equally(
    tiny_clip: TinyClip, transformers_folder: Path, width: int, height: int
) -> None:
    formats = (
        load_open_clip_folder(parse_clip_spec(f"local-dir:{tiny_clip.folder}")),
        load(parse_clip_spec(f"transformers:{transformers_folder}")),
    )
    image = make_image(width, height)
    first, second = (encoders.preprocessing.apply(image) for encoders in formats)
    assert torch.equal(first, second)


def test_squash_scales_both_sides() -> None:
    image = make_image(40, 30)
    tensor = read_open_clip_config({"resize_mode": "squash", "mean": 0.5, "std": 0.5}, (16, 24)).apply(image)
    resized = np.asarray(Image.fromarray(image).resize((24, 16), Image.Resampling.BICUBIC), np.float32)
    np.testing.assert_allclose(tensor[0].permute(1, 2, 0).numpy(), resized / 127.5 - 1, atol=1e-6)


def test_longest_pads_the_shorter_side_with_the_fill_color() -> None:
    config = {"resize_mode": "longest", "fill_color": 255, "mean": [0, 0, 0], "std": [1, 1, 1]}
    tensor = read_open_clip_config(config, 16).apply(np.zeros((10, 40, 3), np.uint8))
    rows = tensor[0, 0].mean(dim=1).tolist()
    assert rows == [1.0] * 6 + [0.0] * 4 + [1.0] * 6  # 16 x 4 pixels in the middle


def test_rectangles_are_covered() -> None:
    tensor = read_open_clip_config({"mean": [0, 0, 0], "std": [1, 1, 1]}, (8, 16)).apply(
        np.full((30, 30, 3), 255, np.uint8)
    )
    assert tensor.shape == (1, 3, 8, 16)
    assert bool((tensor == 1).all())


def test_elongated_images_are_unsuitable() -> None:
    with pytest.raises(UnsuitableImageError, match="an image of 4x400 pixels is more than 50 times as long as wide"):
        read_open_clip_config({}, 224).apply(np.zeros((400, 4, 3), np.uint8))


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"resize_mode": "stretch"}, "resize_mode 'stretch'"),
        ({"interpolation": "nearest"}, "interpolation 'nearest'"),
        ({"mode": "L"}, "mode 'L'"),
    ],
)
def test_unknown_settings_are_refused(config: dict[str, str], match: str) -> None:
    with pytest.raises(UserError, match=match):
        read_open_clip_config(config, 224)


def test_processors_are_read_and_strange_ones_refused() -> None:
    from transformers import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224})
    assert read_processor(processor) == ClipPreprocessing((256, 256), (224, 224), DEFAULT_MEAN, DEFAULT_STD)
    squashing = CLIPImageProcessorPil(size={"height": 32, "width": 48}, do_center_crop=False, resample=2)
    assert read_processor(squashing).size == read_processor(squashing).crop == (32, 48)
    for options, match in (
        ({"do_resize": False}, "must resize"),
        ({"rescale_factor": 1.0}, "rescale_factor 1.0"),
        ({"size": {"shortest_edge": 200}}, "crop must not be larger"),
    ):
        with pytest.raises(UserError, match=match):
            read_processor(CLIPImageProcessorPil(**options))
