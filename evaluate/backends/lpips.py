"""LPIPS 0.1 with AlexNet (Zhang et al. 2018, arXiv 1801.03924): a weighted distance of network features.

The user provides both weight files: AlexNet as published by torchvision, and the heads from the package `lpips`. The
distance equals that of `lpips.LPIPS(net="alex")`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, NamedTuple

from ...common.errors import UserError
from ...storage.files import hash_file
from ..images.suitability import require_side
from ..images.types import ImageArray

if TYPE_CHECKING:
    from torch import Tensor

BACKBONE_FILE = "alexnet-owt-7be5be79.pth"
HEADS_FILE = "alex.pth"
USAGE_HINT = (
    f"pass --lpips FOLDER, which contains torchvision's {BACKBONE_FILE} and lpips/weights/v0.1/{HEADS_FILE} of the "
    "package lpips"
)
MIN_SIDE = 31  # pixels: a smaller image has less than one window of AlexNet's second pooling
# Mean and standard deviation that images in -1..1 are normalized with.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
EPSILON = 1e-10


class _ConvLayer(NamedTuple):
    """A convolution of AlexNet; `number` is its index in the weight file."""

    number: int
    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    padding: int
    max_pool_first: bool


LAYERS = (
    _ConvLayer(0, 3, 64, 11, 4, 2, False),
    _ConvLayer(3, 64, 192, 5, 1, 2, True),
    _ConvLayer(6, 192, 384, 3, 1, 1, True),
    _ConvLayer(8, 384, 256, 3, 1, 1, False),
    _ConvLayer(10, 256, 256, 3, 1, 1, False),
)


class LpipsModel:
    """LPIPS with weights from a folder.

    Args:
        folder: Folder with `alexnet-owt-7be5be79.pth` and `alex.pth`.

    Attributes:
        version: Digests of the weights, for cache keys.

    Raises:
        UserError: A file is missing, unreadable, or not what its name says.
    """

    def __init__(self, folder: Path) -> None:
        self._weights = _load_weights(folder / BACKBONE_FILE, _get_backbone_shapes())
        self._heads = _load_weights(folder / HEADS_FILE, _get_head_shapes())
        backbone_hash, heads_hash = hash_file(folder / BACKBONE_FILE), hash_file(folder / HEADS_FILE)
        self.version = f"alex 0.1, sha256 {backbone_hash}, heads {heads_hash[:8]}"

    def distance(self, reference: ImageArray, variant: ImageArray) -> float:
        """Returns the distance of two images; 0 for identical ones.

        Raises:
            UnsuitableImageError: The images are too small for AlexNet.
        """
        import torch

        require_side(reference, MIN_SIDE, f"the {MIN_SIDE}x{MIN_SIDE} pixels that AlexNet needs")
        with torch.inference_mode():
            pairs = zip(self._compute_features(reference), self._compute_features(variant), strict=True)
            distances = [
                ((a - b).square() * self._heads[f"lin{layer}.model.1.weight"]).sum(1).mean()
                for layer, (a, b) in enumerate(pairs)
            ]
            return float(torch.stack(distances).sum())

    def _compute_features(self, image: ImageArray) -> Iterator[Tensor]:
        """Yields the features of each layer, ``(1, channels, height, width)``, normalized per pixel."""
        import torch
        import torch.nn.functional as F

        shift, scale = (torch.tensor(values)[:, None, None] for values in (SHIFT, SCALE))
        x = ((torch.tensor(image).permute(2, 0, 1).float() / 127.5 - 1 - shift) / scale)[None]
        for layer in LAYERS:
            x = F.max_pool2d(x, 3, 2) if layer.max_pool_first else x
            weight, bias = (self._weights[f"features.{layer.number}.{kind}"] for kind in ("weight", "bias"))
            x = F.relu(F.conv2d(x, weight, bias, layer.stride, layer.padding))
            yield x / (x.square().sum(1, keepdim=True).sqrt() + EPSILON)


def _get_backbone_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in LAYERS:
        kernel = (layer.kernel_size, layer.kernel_size)
        shapes[f"features.{layer.number}.weight"] = (layer.out_channels, layer.in_channels, *kernel)
        shapes[f"features.{layer.number}.bias"] = (layer.out_channels,)
    return shapes


def _get_head_shapes() -> dict[str, tuple[int, ...]]:
    return {f"lin{head}.model.1.weight": (1, layer.out_channels, 1, 1) for head, layer in enumerate(LAYERS)}


def _load_weights(file: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Loads the tensors with these names and shapes as float32."""
    import torch

    if not file.is_file():
        raise UserError(f"{file} does not exist; {USAGE_HINT}.")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        raise UserError(f"{file} cannot be loaded as weights. Download it again.") from error
    for name, shape in shapes.items():
        if name not in content or tuple(content[name].shape) != shape:
            raise UserError(f"{file} has no tensor {name} of shape {shape}. Give the weights for AlexNet as --lpips.")
    return {name: content[name].float() for name in shapes}
