"""The bill of materials of an artifact in CycloneDX 1.6: its files, the model, and the packages that run it.

The format is described at https://cyclonedx.org/docs/1.6/json/. The document holds no time and no serial number, so
that the same artifact gives the same bytes.
"""

from __future__ import annotations

from importlib import metadata
from typing import Any

from ..storage.artifact_schema import ArtifactDescription, ComponentDescription

RUNTIME_PACKAGES = (
    "click", "jinja2", "numpy", "onnxruntime", "pillow", "protobuf", "pydantic", "pyyaml", "rich", "tokenizers",
)  # fmt: skip


def build_sbom(description: ArtifactDescription) -> dict[str, Any]:
    """Builds the document.

    Args:
        description: The artifact.
    """
    model: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": "artifact",
        "name": f"{description.source.model or description.pipeline_class} for {description.device}",
        "modelCard": {
            "modelParameters": {"task": "text-to-image", "modelArchitecture": description.pipeline_class},
        },
    }
    if description.source.revision:
        model["version"] = description.source.revision
    if description.source.license:
        model["licenses"] = [{"license": {"name": description.source.license}}]
    edgepress = {"type": "application", "name": "edgepress", "version": description.versions["edgepress"]}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"tools": {"components": [edgepress]}, "component": model},
        "components": [
            *(_describe_folder(name, component) for name, component in description.components.items()),
            *filter(None, map(_describe_package, RUNTIME_PACKAGES)),
        ],
    }


def _describe_folder(name: str, component: ComponentDescription) -> dict[str, Any]:
    files = [
        {
            "type": "file",
            "bom-ref": file.path,
            "name": file.path,
            "hashes": [{"alg": "SHA-256", "content": file.sha256}],
        }
        for file in component.files
    ]
    status = {"name": "edgepress:status", "value": f"{component.status}: {component.reason}"}
    folder: dict[str, Any] = {"type": "data", "bom-ref": name, "name": name, "properties": [status]}
    return folder | ({"components": files} if files else {})


def _describe_package(name: str) -> dict[str, Any] | None:
    """A package that runs the artifact, in the version that is installed here; None if it is not."""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
    purl = f"pkg:pypi/{name}@{version}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
