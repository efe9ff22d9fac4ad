"""LPIPS with AlexNet, version 0.1 (Zhang et al. 2018, arXiv 1801.03924): a weighted distance of a network's features.

Both files are given by whoever wants it: AlexNet's weights as torchvision publishes them, and the heads of the package
`lpips`. The distance is that of its LPIPS(net="alex").
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

from ...common.errors import UserError
from ...storage.files import hash_file
from ..images.types import ImageArray

if TYPE_CHECKING:
    from torch import Tensor

BACKBONE_FILE = "alexnet-owt-7be5be79.pth"
HEADS_FILE = "alex.pth"
USAGE_HINT = f"pass --lpips FOLDER, which holds torchvision's {BACKBONE_FILE} and lpips/weights/v0.1/{HEADS_FILE} of the package lpips"
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pictures in -1..1
# Number in the file, channels in and out, kernel, stride, padding, and whether pooling comes first.
LAYERS = (
    (0, 3, 64, 11, 4, 2, False),
    (3, 64, 192, 5, 1, 2, True),
    (6, 192, 384, 3, 1, 1, True),
    (8, 384, 256, 3, 1, 1, False),
    (10, 256, 256, 3, 1, 1, False),
)
EPSILON = 1e-10


class LpipsModel:
    """The distance, with the weights of a folder.

    Raises:
        UserError: a file is missing, unreadable, or not what its name says.
    """

    def __init__(self, folder: Path) -> None:
        self._weights = _load_weights(folder / BACKBONE_FILE, _get_backbone_shapes())
        self._heads = _load_weights(folder / HEADS_FILE, _get_head_shapes())
        self.version = (
            f"alex 0.1, sha256 {hash_file(folder / BACKBONE_FILE)}, heads {hash_file(folder / HEADS_FILE)[:8]}"
        )

    def distance(self, reference: ImageArray, variant: ImageArray) -> float:
        """0 for identical pictures."""
        import torch

        with torch.inference_mode():
            pairs = zip(self._features(reference), self._features(variant), strict=True)
            parts = [
                ((a - b).square() * self._heads[f"lin{layer}.model.1.weight"]).sum(1).mean()
                for layer, (a, b) in enumerate(pairs)
            ]
            return float(torch.stack(parts).sum())

    def _features(self, picture: ImageArray) -> Iterator[Tensor]:
        """What each layer makes of the picture, (1, channels, h, w), every pixel's channels of length 1."""
        import torch
        import torch.nn.functional as F

        shift, scale = (torch.tensor(values)[:, None, None] for values in (SHIFT, SCALE))
        x = ((torch.tensor(picture).permute(2, 0, 1).float() / 127.5 - 1 - shift) / scale)[None]
        for number, _, _, _, stride, padding, pooled in LAYERS:
            x = F.max_pool2d(x, 3, 2) if pooled else x
            weight, bias = (self._weights[f"features.{number}.{kind}"] for kind in ("weight", "bias"))
            x = F.relu(F.conv2d(x, weight, bias, stride, padding))
            yield x / (x.square().sum(1, keepdim=True).sqrt() + EPSILON)


def _get_backbone_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for number, inputs, outputs, kernel, *_ in LAYERS:
        shapes |= {
            f"features.{number}.weight": (outputs, inputs, kernel, kernel),
            f"features.{number}.bias": (outputs,),
        }
    return shapes


def _get_head_shapes() -> dict[str, tuple[int, ...]]:
    return {f"lin{layer}.model.1.weight": (1, outputs, 1, 1) for layer, (_, _, outputs, *_) in enumerate(LAYERS)}


def _load_weights(file: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The tensors of these names and shapes."""
    import torch

    if not file.is_file():
        raise UserError(f"There is no {file}; {USAGE_HINT}.")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        raise UserError(f"{file} cannot be read as weights; fetch it anew.") from error
    for name, shape in shapes.items():
        if name not in content or tuple(content[name].shape) != shape:
            raise UserError(f"{file} has no {name} of the shape {shape}; it must be AlexNet's.")
    return {name: content[name].float() for name in shapes}
