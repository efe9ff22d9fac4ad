"""Prepares images for CLIP, the same way for every library.

The libraries center an odd margin differently: torchvision, and with it open_clip, rounds half of it to the nearest
even number, transformers rounds it down. A score would depend on which one is installed. Here images are resized by
Pillow and cropped as torchvision does, with which CLIP was trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ....common.errors import UserError
from ...images.suitability import require_compact
from ...images.types import ImageArray

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

ResizeMode = Literal["shortest", "longest", "squash"]
Size = tuple[int, int]  # height and width, in pixels

VERSION = 2  # higher with every change that gives the model other values of an image; 1: done by the libraries
DEFAULT_MEAN = (0.48145466, 0.4578275, 0.40821073)
DEFAULT_STD = (0.26862954, 0.26130258, 0.27577711)
RESAMPLING = {"bilinear": 2, "bicubic": 3, "random": 3}  # values of Pillow's Image.Resampling; random is for training


@dataclass(frozen=True)
class ClipPreprocessing:
    """How a CLIP model expects its images.

    Attributes:
        size: Size that the image is scaled to.
        crop: Size of the central part that the model sees.
        mean: Mean of each channel, of values in 0..1.
        std: Standard deviation of each channel.
        resize_mode: `shortest`: the image covers `size`. `longest`: it fits into `size` and is padded. `squash`: both
            sides are scaled, whatever the aspect ratio.
        resample: Value of Pillow's Image.Resampling.
        fill_color: Gray level of the padding.
    """

    size: Size
    crop: Size
    mean: tuple[float, ...] = DEFAULT_MEAN
    std: tuple[float, ...] = DEFAULT_STD
    resize_mode: ResizeMode = "shortest"
    resample: int = RESAMPLING["bicubic"]
    fill_color: int = 0

    def apply(self, image: ImageArray) -> Tensor:
        """Returns an image as the model's input: float32 of shape ``(1, 3, height, width)``.

        Raises:
            UnsuitableImageError: The image is so elongated that CLIP would see next to nothing of it.
        """
        import torch

        cropped = self._crop(self._resize(image))
        scaled = np.asarray(cropped, np.float32) / np.float32(255)
        normalized = (scaled - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return torch.from_numpy(np.ascontiguousarray(normalized.transpose(2, 0, 1)))[None]

    def _resize(self, image: ImageArray) -> Image:
        from PIL import Image

        height, width = image.shape[:2]
        require_compact(image, "CLIP sees only its central square")
        new_height, new_width = self._compute_size(height, width)
        return Image.fromarray(image).resize((new_width, new_height), Image.Resampling(self.resample))

    def _compute_size(self, height: int, width: int) -> Size:
        """Returns the size that an image is scaled to."""
        if self.resize_mode == "squash":
            return self.size
        if self.resize_mode == "shortest" and self.size[0] == self.size[1]:  # torchvision rounds down
            short, long = sorted((height, width))
            scaled = int(self.size[0] * long / short)
            return (self.size[0], scaled) if height <= width else (scaled, self.size[0])
        ratios = height / self.size[0], width / self.size[1]
        ratio = min(ratios) if self.resize_mode == "shortest" else max(ratios)
        return max(1, round(height / ratio)), max(1, round(width / ratio))

    def _crop(self, image: Image) -> Image:
        """Returns the central part of an image, padded where the image ends."""
        from PIL import Image

        top, left = (
            _center(length, target) for length, target in zip((image.height, image.width), self.crop, strict=True)
        )
        canvas = Image.new("RGB", (self.crop[1], self.crop[0]), (self.fill_color,) * 3)
        canvas.paste(image, (-left, -top))
        return canvas


def read_open_clip_config(config: Mapping[str, Any], image_size: int | Sequence[int]) -> ClipPreprocessing:
    """Reads open_clip's `preprocess_cfg`.

    Args:
        config: The configuration. As in open_clip, what it omits has a default, and unknown keys are ignored.
        image_size: Height and width of the image encoder's input, in pixels; one number if they are equal.

    Raises:
        UserError: open_clip does not define such a preprocessing.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else (int(image_size[0]), int(image_size[1]))
    resize_mode: Any = config.get("resize_mode") or "shortest"
    interpolation = config.get("interpolation") or "bicubic"
    if config.get("mode", "RGB") != "RGB":
        raise UserError(f"The CLIP model has mode {config['mode']!r}, but must take RGB images. Give another --clip.")
    if resize_mode not in ("shortest", "longest", "squash"):
        raise UserError(f"The CLIP model has resize_mode {resize_mode!r}. Set it to shortest, longest or squash.")
    if interpolation not in RESAMPLING:
        raise UserError(f"The CLIP model has interpolation {interpolation!r}. Set it to bicubic or bilinear.")
    return ClipPreprocessing(
        size=size,
        crop=size,
        mean=_read_channels(config.get("mean") or DEFAULT_MEAN),
        std=_read_channels(config.get("std") or DEFAULT_STD),
        resize_mode=resize_mode,
        resample=RESAMPLING[interpolation],
        fill_color=int(config.get("fill_color") or 0),
    )


def read_processor(processor: Any) -> ClipPreprocessing:
    """Reads the settings of transformers' CLIPImageProcessor.

    Raises:
        UserError: The images that it makes are not those of a CLIP model.
    """
    if not (processor.do_resize and processor.do_rescale and processor.do_normalize):
        raise UserError(
            "The CLIP image processor must resize, rescale and normalize. Set `do_resize`, `do_rescale` and "
            "`do_normalize` to true in preprocessor_config.json."
        )
    if abs(255 * processor.rescale_factor - 1) > 0.01:
        raise UserError(f"The CLIP image processor has rescale_factor {processor.rescale_factor}. Set it to 1/255.")
    shortest = processor.size.shortest_edge
    size = (shortest, shortest) if shortest else (processor.size.height, processor.size.width)
    crop = (processor.crop_size.height, processor.crop_size.width) if processor.do_center_crop else size
    if None in size or crop[0] > size[0] or crop[1] > size[1]:
        raise UserError(
            f"The CLIP image processor resizes to {size} and crops to {crop}. Give both a height and a width, and the "
            "crop must not be larger."
        )
    return ClipPreprocessing(
        size=size,
        crop=crop,
        mean=_read_channels(processor.image_mean),
        std=_read_channels(processor.image_std),
        resize_mode="shortest" if shortest else "squash",
        resample=int(processor.resample),
    )


def _center(length: int, target: int) -> int:
    """Returns where the central part of a side begins; negative if the side is too short and is padded."""
    margin = length - target
    return round(margin / 2) if margin >= 0 else -(-margin // 2)


def _read_channels(values: float | Sequence[float]) -> tuple[float, ...]:
    return (float(values),) * 3 if isinstance(values, int | float) else tuple(float(value) for value in values)
