"""Loads the pipeline.json of exported RKNN parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...common.errors import UserError
from ...common.named_configs import name_configs
from ...storage.integrity import require_inside, require_intact
from ...storage.layout import CONFIG_NAME, ONNX, RKNN, SIMULATOR_FOLDER, is_export, locate_folder
from ...storage.pipeline_config import PartConfig, RuntimeConfig, is_rknn_export, read_rknn_config
from ...storage.provenance import list_required_files, require_fresh
from ...storage.recognition import require_export
from .part_chain import PartRef

EMBEDDINGS_FILE = "embeddings.npy"

EXPORT_AGAIN = "Run 'edgepress export rknn' again, or copy the folder again from where it was made."


@dataclass(frozen=True)
class BuildConfig:
    """How the toolkit builds a part.

    Attributes:
        toolkit_config: The toolkit's own settings.
        is_quantized: Whether it is quantized with calibration samples.
        float_layers: Outputs of the layers that are not quantized.
    """

    toolkit_config: Mapping[str, Any]
    is_quantized: bool = False
    float_layers: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportedRknn:
    """Exported RKNN parts.

    Attributes:
        folder: Their folder.
        pipeline_class: Class name of the pipeline.
        target: Processor that they were built for.
        toolkit_version: Version of rknn-toolkit2 that built them.
        image_size: Height and width of the images, in pixels.
        max_prompt_tokens: Largest number of tokens of a prompt.
        graphs: The parts of each graph, in order.
        host_configs: Configs of the components and of the scheduler, by folder name.
        tile_size: Side in pixels of the tiles that images are decoded in; None if they are decoded whole.
        runtime: How parts run on the device's CPU.
    """

    folder: Path
    pipeline_class: str
    target: str
    toolkit_version: str
    image_size: tuple[int, int]
    max_prompt_tokens: int
    graphs: Mapping[str, tuple[PartConfig, ...]]
    host_configs: Mapping[str, Any]
    tile_size: int | None = None
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)

    @property
    def part_refs(self) -> dict[str, list[PartRef]]:
        """The parts of each graph, as they are chained."""
        return {name: [PartRef(part.name, part.inputs) for part in parts] for name, parts in self.graphs.items()}

    @property
    def parts(self) -> dict[str, PartConfig]:
        """All parts, by name."""
        return {part.name: part for parts in self.graphs.values() for part in parts}

    def rknn_file(self, part: str) -> Path:
        """Path of the built part, for a board."""
        return self.folder / f"{part}.rknn"

    def onnx_file(self, part: PartConfig) -> Path:
        """Path of the ONNX file that ONNX Runtime runs on the CPU, or that the toolkit builds for the NPU."""
        return (self.folder if part.device == "cpu" else self.folder / SIMULATOR_FOLDER) / f"{part.name}.onnx"

    def samples_folder(self, part: str) -> Path:
        """Folder of a part's calibration samples: an array for each sample and input, NUMBER-INPUT.npy."""
        return self.folder / SIMULATOR_FOLDER / part


def is_rknn_artifact(artifact: Path) -> bool:
    """Returns whether a folder is an exported folder `rknn`, or an artifact with RKNN parts but no ONNX graphs."""
    if is_export(artifact):
        return is_rknn_export(artifact)
    return locate_folder(artifact).name == RKNN or (is_export(artifact / RKNN) and not is_export(artifact / ONNX))


def load_exported_rknn(artifact: Path) -> ExportedRknn:
    """Loads the exported parts of an artifact.

    Args:
        artifact: Folder of the artifact, or its `rknn` folder.

    Raises:
        UserError: The path is something else, nothing was exported, a newer version exported it, a file is missing or
            not as it was exported, or the model that the parts were made from was replaced.
    """
    require_export(artifact)
    folder = find_rknn_folder(artifact)
    config = read_rknn_config(folder)
    exported = ExportedRknn(
        folder=folder,
        pipeline_class=config.family,
        target=config.target,
        toolkit_version=config.toolkit,
        image_size=config.size,
        max_prompt_tokens=config.max_prompt_tokens,
        graphs=config.graphs,
        host_configs=name_configs(config.host, "host."),
        tile_size=config.tile,
        runtime=config.runtime,
    )
    for part in exported.parts.values():
        file = exported.onnx_file(part) if part.device == "cpu" else exported.rknn_file(part.name)
        if not file.exists():
            raise UserError(f"{file}, named in {CONFIG_NAME}, is missing. {EXPORT_AGAIN}")
        if not config.files:
            require_inside(folder, file)
    require_fresh(folder, config.model_sha256, config.sources)
    require_intact(folder, list_required_files(folder, config.recorded_files), EXPORT_AGAIN)
    return exported


def find_rknn_folder(artifact: Path) -> Path:
    """The folder of the parts: an artifact's `rknn`, or the folder itself if that is given."""
    return artifact if is_export(artifact) or locate_folder(artifact).name == RKNN else artifact / RKNN
