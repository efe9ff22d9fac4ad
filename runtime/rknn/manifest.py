"""Reads and describes the rknn/pipeline.json of an artifact: graphs, their parts, and what the host must know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...errors import UserError
from .chain import Link

SCHEMA_VERSION = 1
FOLDER, NAME = "rknn", "pipeline.json"
EMBEDDINGS = "embeddings.npy"
SIMULATOR = "simulator"  # the folder of what the toolkit needs to build a part again, which a board does not


@dataclass(frozen=True)
class Recipe:
    """How the toolkit builds a part.

    config: its settings. quantized: whether calibration samples are there. float_layers: outputs of layers that are not
    quantized.
    """

    config: Mapping[str, Any]
    quantized: bool = False
    float_layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class PartFile:
    """A part in an artifact: the ports that it reads, where it runs, and how it is built."""

    name: str
    inputs: tuple[str, ...]
    device: Literal["npu", "cpu"]
    recipe: Recipe


@dataclass(frozen=True)
class Exported:
    """An exported folder.

    size: height and width of its pictures. tokens: of a prompt, at most. target: the processor that it is for. tile:
    side in pixels of the tiles that pictures are decoded in; None where they are decoded whole.
    """

    folder: Path
    family: str
    target: str
    toolkit: str
    size: tuple[int, int]
    tokens: int
    graphs: Mapping[str, tuple[PartFile, ...]]
    host: Mapping[str, Any]
    tile: int | None = None

    @property
    def links(self) -> dict[str, list[Link]]:
        return {name: [Link(part.name, part.inputs) for part in parts] for name, parts in self.graphs.items()}

    @property
    def parts(self) -> dict[str, PartFile]:
        return {part.name: part for parts in self.graphs.values() for part in parts}

    def rknn(self, part: str) -> Path:
        """What a board loads."""
        return self.folder / f"{part}.rknn"

    def onnx(self, part: PartFile) -> Path:
        """What ONNX Runtime runs, or what the toolkit builds a part from."""
        return (self.folder if part.device == "cpu" else self.folder / SIMULATOR) / f"{part.name}.onnx"

    def samples(self, part: str) -> Path:
        """The calibration samples of a part, one .npy an input and sample: NUMBER-PORT.npy."""
        return self.folder / SIMULATOR / part


def there(artifact: Path) -> bool:
    """Whether a folder is an artifact's RKNN parts, or an artifact that holds them and no ONNX graphs."""
    onnx = (artifact / NAME).exists() or (artifact / "onnx" / NAME).exists()
    return artifact.name == FOLDER or ((artifact / FOLDER / NAME).exists() and not onnx)


def read(artifact: Path) -> Exported:
    """What was exported to an artifact, or to its `rknn` folder itself.

    Raises:
        UserError: nothing was, or by another version, or files are missing.
    """
    folder = artifact if artifact.name == FOLDER else artifact / FOLDER
    path = folder / NAME
    try:
        content = json.loads(path.read_text("utf-8"))
        version = content.get("schema_version")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({error}); 'edgepress export rknn' makes it.") from error
    if version != SCHEMA_VERSION:
        raise UserError(f"{path} is of schema {version}, and this edgepress reads {SCHEMA_VERSION}; export it again.")
    try:
        found = _exported(folder, content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # not as any version has written it
        raise UserError(f"{path} is damaged ({error!r}); export the artifact again.") from error
    files = [found.onnx(part) if part.device == "cpu" else found.rknn(part.name) for part in found.parts.values()]
    missing = [file for file in files if not file.exists()]
    if missing:
        raise UserError(f"{missing[0]} is missing, though {NAME} names it; export the artifact again.")
    return found


def _exported(folder: Path, content: Mapping[str, Any]) -> Exported:
    graphs = {name: tuple(map(_part, parts)) for name, parts in content["graphs"].items()}
    high, wide = content["size"]
    keys = ("family", "target", "toolkit", "tokens", "host")
    tile = content.get("tile")  # which older exports do not say
    return Exported(folder, size=(high, wide), graphs=graphs, tile=tile, **{key: content[key] for key in keys})


def described(part: PartFile) -> dict[str, Any]:
    """A part in pipeline.json's words."""
    return {
        "name": part.name,
        "inputs": list(part.inputs),
        "device": part.device,
        "config": dict(part.recipe.config),
        "quantized": part.recipe.quantized,
        "float_layers": list(part.recipe.float_layers),
    }


def _part(said: Mapping[str, Any]) -> PartFile:
    recipe = Recipe(said["config"], said["quantized"], tuple(said["float_layers"]))
    return PartFile(said["name"], tuple(said["inputs"]), said["device"], recipe)
