"""Takes text encoders from another artifact, where they were quantized from the same weights in the same way.

Pipelines of several families read the same text encoder. What tells that it is the same is the SHA-256 of its weights,
which the manifest of the other artifact records.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..common.errors import UserError
from ..pipelines.lora_scales import read_scale_tensors
from ..recipes.schema import PRIMARY
from ..storage.checkpoint import Checkpoint, write_tensors
from ..storage.files import FileRecord, digest_files
from ..storage.integrity import require_intact
from ..storage.layout import Artifact, solution_folder
from ..storage.manifest import Manifest, ReusedComponent, read_manifest
from .plan import ComponentPlan, QuantBlock, QuantizationPlan
from .reuse_preflight import list_quantized_components, list_weights, reject_other_weights
from .workspace import Workspace


@dataclass(frozen=True)
class SharedComponent:
    """A component of another artifact that takes the place of one that would be quantized.

    Attributes:
        component: The component that it replaces.
        artifact: The other artifact.
        manifest: Its manifest.
        name: The component's name there.
    """

    component: ComponentPlan
    artifact: Artifact
    manifest: Manifest
    name: str

    @property
    def record(self) -> ReusedComponent:
        """What the manifest says of it."""
        files = [file for file in self.manifest.files if file.path.startswith(f"{self.name}/")]
        return ReusedComponent(artifact_key=self.manifest.key, component=self.name, sha256=digest_files(files))

    def write_blocks(self, schemes: Iterable[str], workspace: Workspace) -> None:
        """Writes the blocks that the pipeline uses as files of quantized blocks, unless they are there.

        Raises:
            UserError: The artifact's files are not what was published.
        """
        require_intact(self.artifact.model, self.manifest.files, "Quantize that artifact again, or leave out --reuse.")
        checkpoints = {name: self._open(name) for name in schemes}
        for block in self.component.blocks:
            file = workspace.block_file(block.name)
            if not file.exists():
                tensors = {
                    f"{scheme}:{name}": tensor
                    for scheme, checkpoint in checkpoints.items()
                    for name, tensor in _load_block(checkpoint, block.path)
                }
                scales = read_scale_tensors(self.artifact.model / self.name, f"{block.path}.")
                tensors |= {f"{PRIMARY}:{name}": scale for name, scale in scales.items()}
                layers = {scheme: self._list_layers(scheme, block) for scheme in schemes}
                write_tensors(tensors, file, json.dumps({"layers": layers, "overflows": []}))

    def _open(self, scheme: str) -> Checkpoint:
        model = self.artifact.model
        return Checkpoint(model / self.name if scheme == PRIMARY else solution_folder(model, scheme, self.name))

    def _list_layers(self, scheme: str, block: QuantBlock) -> list[dict[str, Any]]:
        """The statistics of a block's layers, under this pipeline's name of the component."""
        recorded = _get_layers(self.manifest, scheme)
        prefix = f"{self.name}.{block.path}."
        return [
            layer | {"layer": self.component.name + layer["layer"].removeprefix(self.name)}
            for layer in recorded
            if layer["layer"].startswith(prefix)
        ]


def find_reused(
    plan: QuantizationPlan, files: Sequence[FileRecord], artifacts: Sequence[Path]
) -> list[SharedComponent]:
    """Finds the text encoders that other artifacts have quantized already.

    Args:
        plan: What is to be quantized.
        files: Every file of the source pipeline, with hashes.
        artifacts: The other artifacts.

    Raises:
        UserError: An artifact has no text encoder of the same weights, or lacks blocks.
    """
    encoders = [component for component in plan.components if component.spec.role == "text_encoder"]
    reused: dict[str, SharedComponent] = {}
    for path in artifacts:
        artifact, manifest = Artifact(path), read_manifest(path)
        assert manifest is not None  # see quantize/preflight.py
        shared = {
            component.name: SharedComponent(component, artifact, manifest, name)
            for component in encoders
            for name in _find_same_weights(component.name, files, manifest)
        }
        if not shared:
            raise reject_other_weights(path, plan.source)
        for candidate in shared.values():
            _check_blocks(candidate)
        reused |= shared
    return list(reused.values())


def _find_same_weights(component: str, files: Sequence[FileRecord], manifest: Manifest) -> list[str]:
    """Names of the quantized components of another artifact that have the weights of a component."""
    weights = _hash_weights(component, files)
    quantized = list_quantized_components(manifest)
    return [name for name in quantized if weights and _hash_weights(name, manifest.sources) == weights]


def _hash_weights(component: str, files: Iterable[FileRecord]) -> set[str]:
    return {file.sha256 for file in list_weights(component, files)}


def _check_blocks(candidate: SharedComponent) -> None:
    """Raises UserError where the pipeline reads blocks that the other one does not, which were not quantized."""
    layers = [layer["layer"] for layer in candidate.manifest.layers]
    missing = [
        block.path
        for block in candidate.component.blocks
        if not any(layer.startswith(f"{candidate.name}.{block.path}.") for layer in layers)
    ]
    if missing:
        raise UserError(
            f"The {candidate.name} of {candidate.artifact.path} lacks {len(missing)} blocks that this pipeline reads, "
            f"such as {missing[0]}. Quantize this pipeline first, and reuse its {candidate.component.name} there."
        )


def _load_block(checkpoint: Checkpoint, path: str) -> Iterable[tuple[str, Tensor]]:
    names = [name for name in checkpoint.names() if name.startswith(f"{path}.")]
    return checkpoint.load_tensors(names)


def _get_layers(manifest: Manifest, scheme: str) -> list[dict[str, Any]]:
    return manifest.layers if scheme == PRIMARY else manifest.extra_scheme_layers.get(scheme, [])
