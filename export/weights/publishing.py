"""Opens what is exported, and publishes a folder of weights for other programs as one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from ... import __version__
from ...common.errors import UserError
from ...common.progress import Progress
from ...pipelines.preflight import check_pipeline, check_weight_formats
from ...storage.files import digest_files
from ...storage.layout import WEIGHT_EXPORT_NAME, Artifact
from ...storage.preflight import check_disk_space, check_output, check_replaceable, is_within
from ...storage.provenance import require_same_model
from ...storage.published_model import read_published_model
from ...storage.publishing import artifact_lock, publish_folder, staging_folder
from ...storage.snapshot import FolderSnapshot
from ...storage.weight_export import ComponentRecord, WeightExport, write_weight_export
from ..graph.source_model import SourcePipeline, open_source

WriteComponents = Callable[[Path], Mapping[str, ComponentRecord]]
"""Writes all files into a folder, and returns what was written of each component."""


@dataclass(frozen=True)
class WeightExportResult:
    """A published folder of weights for other programs. `print` shows it as a table.

    Attributes:
        folder: The published folder.
        export: What its export.json says.
    """

    folder: Path
    export: WeightExport

    def __str__(self) -> str:
        lines = [f"{self.export.format} export in {self.folder}"]
        for name, record in self.export.components.items():
            types = ", ".join(f"{count} {kind}" for kind, count in record.types.items())
            difference = f"within {record.max_difference:.2g} steps" if record.max_difference else "equal"
            lines.append(
                f"  {name}: {record.bytes / 1e6:.2f} MB, {record.bits_per_weight:.3f} bits per weight ({types}); "
                f"quantized weights {difference}"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class PipelineExport:
    """A quantized pipeline on its way to a folder of weights for other programs. Create it with `open_export`.

    Attributes:
        pipeline: The pipeline.
        target: The folder that is written or replaced, in an artifact.
    """

    pipeline: SourcePipeline
    target: Path

    def require_int4(self, has_int4: bool, what: str = "INT4 weights") -> None:
        """Raises UserError if no weight of what is exported has 4 bits.

        Args:
            has_int4: Whether one has.
            what: What is missing otherwise.
        """
        if not has_int4:
            raise UserError(f"{self.pipeline.folder} has no {what}. Quantize it with 'edgepress quantize'.")

    def check_sources(self, progress: Progress) -> None:
        """Compares the files with the manifest, which needs no torch, and then the weights with their classes.

        Raises:
            UserError: A file was changed since the pipeline was quantized, or weights are not those of their class.
        """
        self.pipeline.check_recorded(progress)
        self.pipeline.check_weights()

    def publish(self, write: WriteComponents, packages: tuple[str, ...], progress: Progress) -> WeightExportResult:
        """Writes the files beside their place and renames them into it. After an error, nothing has changed.

        Args:
            write: Writes the files.
            packages: Packages whose versions are recorded.
            progress: Called with the stages of the export.

        Raises:
            UserError: A file of the pipeline was changed since it was quantized, or while it was read.
        """
        pipeline, artifact = self.pipeline, Artifact(self.target.parent)
        check_disk_space(artifact.path, sum(file.stat().st_size for file in pipeline.folder.glob("*/*.safetensors")))
        snapshot = FolderSnapshot.take(pipeline.folder)
        with artifact_lock(artifact.path) as work, staging_folder(work, "weights") as stage:
            sources = pipeline.verify_and_hash(progress)
            published = read_published_model(artifact) if artifact.has_model else None
            is_own_model = published is not None and set(published.files) == set(sources)
            components = dict(write(stage))
            snapshot.require_unchanged()
            export = WeightExport(
                format=self.target.name,
                family=pipeline.family.pipeline_class,
                model_sha256=digest_files(sources) if is_own_model else "",
                components=components,
                versions={"edgepress": __version__} | {package: version(package) for package in packages},
            )
            export = write_weight_export(export, stage)
            publish_folder(stage, self.target)
        return WeightExportResult(self.target, export)


def open_export(source: str | Path, output: str | Path, folder: str) -> PipelineExport:
    """Opens a pipeline to export, and checks its files and that the export can be written.

    No torch is imported. Weights are compared with hashes and classes by `check_sources`, which is left to do.

    Args:
        source: A diffusers folder or an artifact folder.
        output: The artifact folder.
        folder: The name of the export's folder in it.

    Raises:
        UserError: A file of the pipeline is missing or corrupt, the artifact cannot be written, or the folder holds
            what edgepress did not make.
    """
    pipeline, artifact = open_source(Path(source), needs_graphs=False), Artifact(Path(output)).path
    target = artifact / folder
    if is_within(artifact, pipeline.folder):
        raise UserError(f"The output {artifact} is inside the model folder {pipeline.folder}. Choose another --output.")
    require_same_model(pipeline.folder, Artifact(artifact))
    check_output(artifact)
    check_replaceable(target, [target / WEIGHT_EXPORT_NAME])
    check_pipeline(pipeline.folder)
    check_weight_formats(pipeline.folder)
    return PipelineExport(pipeline, target)
