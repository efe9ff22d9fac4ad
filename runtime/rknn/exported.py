"""Reads and describes the rknn/pipeline.json of an artifact: graphs, their parts, and what the host must know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...common.errors import UserError
from .part_chain import PartRef

SCHEMA_VERSION = 1
RKNN_FOLDER, CONFIG_FILE = "rknn", "pipeline.json"
EMBEDDINGS_FILE = "embeddings.npy"
SIMULATOR_FOLDER = "simulator"  # the folder of what the toolkit needs to build a part again, which a board does not


@dataclass(frozen=True)
class BuildConfig:
    """How the toolkit builds a part.

    config: its settings. quantized: whether calibration samples are there. float_layers: outputs of layers that are not
    quantized.
    """

    toolkit_config: Mapping[str, Any]
    is_quantized: bool = False
    float_layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportedPart:
    """A part in an artifact: the ports that it reads, where it runs, and how it is built."""

    name: str
    input_names: tuple[str, ...]
    device: Literal["npu", "cpu"]
    build_config: BuildConfig


@dataclass(frozen=True)
class ExportedRknn:
    """An exported folder.

    size: height and width of its pictures. tokens: of a prompt, at most. target: the processor that it is for. tile:
    side in pixels of the tiles that pictures are decoded in; None where they are decoded whole.
    """

    folder: Path
    family: str
    target: str
    toolkit_version: str
    image_size: tuple[int, int]
    max_prompt_tokens: int
    graphs: Mapping[str, tuple[ExportedPart, ...]]
    host_configs: Mapping[str, Any]
    tile_size: int | None = None

    @property
    def part_refs(self) -> dict[str, list[PartRef]]:
        return {name: [PartRef(part.name, part.input_names) for part in parts] for name, parts in self.graphs.items()}

    @property
    def parts(self) -> dict[str, ExportedPart]:
        return {part.name: part for parts in self.graphs.values() for part in parts}

    def rknn_file(self, part: str) -> Path:
        """What a board loads."""
        return self.folder / f"{part}.rknn"

    def onnx_file(self, part: ExportedPart) -> Path:
        """What ONNX Runtime runs, or what the toolkit builds a part from."""
        return (self.folder if part.device == "cpu" else self.folder / SIMULATOR_FOLDER) / f"{part.name}.onnx"

    def samples_folder(self, part: str) -> Path:
        """The calibration samples of a part, one .npy an input and sample: NUMBER-PORT.npy."""
        return self.folder / SIMULATOR_FOLDER / part


def is_rknn_artifact(artifact: Path) -> bool:
    """Whether a folder is an artifact's RKNN parts, or an artifact that holds them and no ONNX graphs."""
    onnx = (artifact / CONFIG_FILE).exists() or (artifact / "onnx" / CONFIG_FILE).exists()
    return artifact.name == RKNN_FOLDER or ((artifact / RKNN_FOLDER / CONFIG_FILE).exists() and not onnx)


def load_exported_rknn(artifact: Path) -> ExportedRknn:
    """What was exported to an artifact, or to its `rknn` folder itself.

    Raises:
        UserError: nothing was, or by another version, or files are missing.
    """
    folder = artifact if artifact.name == RKNN_FOLDER else artifact / RKNN_FOLDER
    path = folder / CONFIG_FILE
    try:
        content = json.loads(path.read_text("utf-8"))
        version = content.get("schema_version")
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({error}); 'edgepress export rknn' makes it.") from error
    if version != SCHEMA_VERSION:
        raise UserError(f"{path} is of schema {version}, and this edgepress reads {SCHEMA_VERSION}; export it again.")
    try:
        found = _parse_exported(folder, content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # not as any version has written it
        raise UserError(f"{path} is damaged ({error!r}); export the artifact again.") from error
    files = [
        found.onnx_file(part) if part.device == "cpu" else found.rknn_file(part.name) for part in found.parts.values()
    ]
    missing = [file for file in files if not file.exists()]
    if missing:
        raise UserError(f"{missing[0]} is missing, though {CONFIG_FILE} names it; export the artifact again.")
    return found


def _parse_exported(folder: Path, content: Mapping[str, Any]) -> ExportedRknn:
    graphs = {name: tuple(map(_parse_part, parts)) for name, parts in content["graphs"].items()}
    high, wide = content["size"]
    keys = ("family", "target", "toolkit", "tokens", "host")
    tile = content.get("tile")  # which older exports do not say
    return ExportedRknn(
        folder, image_size=(high, wide), graphs=graphs, tile_size=tile, **{key: content[key] for key in keys}
    )


def part_to_json(part: ExportedPart) -> dict[str, Any]:
    """A part in pipeline.json's words."""
    return {
        "name": part.name,
        "inputs": list(part.input_names),
        "device": part.device,
        "config": dict(part.build_config.toolkit_config),
        "quantized": part.build_config.is_quantized,
        "float_layers": list(part.build_config.float_layers),
    }


def _parse_part(said: Mapping[str, Any]) -> ExportedPart:
    recipe = BuildConfig(said["config"], said["quantized"], tuple(said["float_layers"]))
    return ExportedPart(said["name"], tuple(said["inputs"]), said["device"], recipe)
