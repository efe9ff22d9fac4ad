"""LPIPS with AlexNet, version 0.1 (Zhang et al. 2018, arXiv 1801.03924): a weighted distance of a network's features.

Both files are given by whoever wants it: AlexNet's weights as torchvision publishes them, and the heads of the package
`lpips`. The distance is that of its LPIPS(net="alex").
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

from ..checkpoint import sha256
from ..errors import UserError
from .registry import Picture

if TYPE_CHECKING:
    from torch import Tensor

BACKBONE = "alexnet-owt-7be5be79.pth"
HEADS = "alex.pth"
HOW = f"pass --lpips FOLDER, which holds torchvision's {BACKBONE} and lpips/weights/v0.1/{HEADS} of the package lpips"
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


class Lpips:
    """The distance, with the weights of a folder.

    Raises:
        UserError: a file is missing, unreadable, or not what its name says.
    """

    def __init__(self, folder: Path) -> None:
        self._weights = _read(folder / BACKBONE, _backbone_shapes())
        self._heads = _read(folder / HEADS, _head_shapes())
        self.version = f"alex 0.1, sha256 {sha256(folder / BACKBONE)}, heads {sha256(folder / HEADS)[:8]}"

    def distance(self, one: Picture, other: Picture) -> float:
        """0 for identical pictures."""
        import torch

        with torch.inference_mode():
            pairs = zip(self._features(one), self._features(other), strict=True)
            parts = [
                ((a - b).square() * self._heads[f"lin{layer}.model.1.weight"]).sum(1).mean()
                for layer, (a, b) in enumerate(pairs)
            ]
            return float(torch.stack(parts).sum())

    def _features(self, picture: Picture) -> Iterator[Tensor]:
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


def _backbone_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for number, inputs, outputs, kernel, *_ in LAYERS:
        shapes |= {
            f"features.{number}.weight": (outputs, inputs, kernel, kernel),
            f"features.{number}.bias": (outputs,),
        }
    return shapes


def _head_shapes() -> dict[str, tuple[int, ...]]:
    return {f"lin{layer}.model.1.weight": (1, outputs, 1, 1) for layer, (_, _, outputs, *_) in enumerate(LAYERS)}


def _read(file: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The tensors of these names and shapes."""
    import torch

    if not file.is_file():
        raise UserError(f"There is no {file}; {HOW}.")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        raise UserError(f"{file} cannot be read as weights; fetch it anew.") from error
    for name, shape in shapes.items():
        if name not in content or tuple(content[name].shape) != shape:
            raise UserError(f"{file} has no {name} of the shape {shape}; it must be AlexNet's.")
    return {name: content[name].float() for name in shapes}
