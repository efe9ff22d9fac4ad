"""Takes text encoders from another artifact, where they were quantized from the same weights in the same way.

Pipelines of several families read the same text encoder. What tells that it is the same is the SHA-256 of its weights,
which the manifest of the other artifact records.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..common.errors import UserError
from ..pipelines.lora_scales import read_scale_tensors
from ..recipes.loader import validate_settings
from ..recipes.schema import PRIMARY, QuantizationSettings
from ..storage.checkpoint import Checkpoint, write_tensors
from ..storage.files import FileRecord, digest_files
from ..storage.integrity import require_intact
from ..storage.layout import Artifact, solution_folder
from ..storage.manifest import Manifest, ReusedComponent, read_manifest
from .plan import ComponentPlan, QuantBlock, QuantizationPlan
from .workspace import Workspace

WEIGHT_SUFFIX = ".safetensors"
# What of the section `quantize` decides nothing about a component that is quantized.
IRRELEVANT = {"components", "tune"}


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
        UserError: An artifact has no text encoder of the same weights, quantized it in another way, or lacks blocks.
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
            raise UserError(
                f"{path} has no text encoder that was quantized from the same weights as one of {plan.source}: no "
                "SHA-256 is the same. Leave out --reuse."
            )
        for candidate in shared.values():
            _check_settings(candidate, plan.settings)
            _check_blocks(candidate)
        reused |= shared
    return list(reused.values())


def _find_same_weights(component: str, files: Sequence[FileRecord], manifest: Manifest) -> list[str]:
    """Names of the quantized components of another artifact that have the weights of a component."""
    weights = _hash_weights(component, files)
    quantized = {layer["layer"].partition(".")[0] for layer in manifest.layers}
    return [name for name in sorted(quantized) if weights and _hash_weights(name, manifest.sources) == weights]


def _hash_weights(component: str, files: Iterable[FileRecord]) -> set[str]:
    paths = (f"{component}/", WEIGHT_SUFFIX)
    return {file.sha256 for file in files if file.path.startswith(paths[0]) and file.path.endswith(paths[1])}


def _check_settings(candidate: SharedComponent, settings: QuantizationSettings) -> None:
    recorded = validate_settings(QuantizationSettings, candidate.manifest.recipe.get("quantize", {}))
    expected, actual = _describe(settings), _describe(recorded)
    different = [key for key in expected if expected[key] != actual[key]]
    if candidate.manifest.loras:
        different.append("loras")
    if recorded.chooses_steps or settings.chooses_steps or settings.tune != "off":
        raise UserError(
            f"A text encoder of {candidate.artifact.path} cannot be reused with the method 'best' or with tuning, "
            "which depend on the whole pipeline. Choose another --method, or leave out --reuse."
        )
    if different:
        raise UserError(
            f"The {candidate.name} of {candidate.artifact.path} was quantized with other settings "
            f"(quantize.{different[0]}). Quantize with the same recipe, or leave out --reuse."
        )


def _describe(settings: QuantizationSettings) -> Mapping[str, Any]:
    return settings.model_dump(mode="json", exclude={"method", *IRRELEVANT}) | {"steps": list(settings.resolved_steps)}


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
