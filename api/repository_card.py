"""README.md of a model repository: what it holds, how good it is, how to load it, how it was made."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..common.errors import UserError
from ..common.markdown_table import render_table
from ..quantize.model_readme import SOURCE_README
from ..storage.layout import COMFYUI, COMPRESSED_TENSORS, GGUF, ONNX, RKNN, WEIGHT_EXPORTS, Artifact
from ..storage.manifest import Manifest
from ..storage.weight_export import read_weight_export
from .model_card import describe_relation
from .repository_usage import describe_usage
from .sample_images import SamplePair, describe_samples

RECIPE_NAME = "recipe.yaml"
REPORT_NAME = "report.md"
CARRIED_KEYS = ("license", "license_name", "license_link", "language")  # of the original's card
TAGS = ("edgepress", "int4", "quantized")
LOCAL_FOLDERS = re.compile(r"(?<=[`:,])/(?!/)[^`\n,:]*/")  # of absolute paths in code, also after `transformer:`
UNVERIFIED = {
    ONNX: "`onnx/` was compared with torch in ONNX Runtime where it was exported, not on the device.",
    GGUF: "`gguf/` was read with gguf, diffusers and transformers; ComfyUI and llama.cpp were not run.",
    COMFYUI: "`comfyui/` was dequantized with comfy-kitchen; ComfyUI was not run.",
    COMPRESSED_TENSORS: "`compressed-tensors/` was opened with transformers; vLLM was not run.",
    RKNN: "`rknn/` was simulated, unless its pipeline.json says that a board verified it.",
}


@dataclass(frozen=True)
class CardSettings:
    """What a card says that the artifact does not know.

    Attributes:
        repo_id: The repository, as `owner/name`.
        base_model: The original on the Hub; empty if unknown.
        license: Identifier of the licence; empty for that of the original's card.
    """

    repo_id: str
    base_model: str = ""
    license: str = ""


def read_source_card(model: Path) -> dict[str, Any]:
    """The front matter of the original's card, as far as it is carried over; empty if there is none.

    Raises:
        UserError: It is not YAML.
    """
    file = model / SOURCE_README
    text = file.read_text("utf-8") if file.is_file() else ""
    if not text.startswith("---\n"):
        return {}
    try:
        values = yaml.safe_load(text[4:].split("\n---", 1)[0])
    except yaml.YAMLError as error:
        raise UserError(f"The front matter of {file} is not valid YAML. Correct it, or remove the file.") from error
    return {key: values[key] for key in CARRIED_KEYS if isinstance(values, dict) and values.get(key)}


def build_front_matter(artifact: Artifact, manifest: Manifest, settings: CardSettings) -> dict[str, Any]:
    """The metadata of a card, as `huggingface_hub.ModelCardData` takes it."""
    carried = read_source_card(artifact.model)
    if settings.license:
        carried = {key: value for key, value in carried.items() if not key.startswith("license")}
        carried["license"] = settings.license
    relation = describe_relation(settings.base_model or manifest.source)
    return {**relation, **carried, "library_name": "diffusers", "pipeline_tag": "text-to-image", "tags": list(TAGS)}


def build_text(
    artifact: Artifact,
    manifest: Manifest,
    settings: CardSettings,
    folders: Sequence[str],
    samples: list[SamplePair],
) -> str:
    """The text of a card below its front matter, in Markdown.

    Args:
        artifact: The artifact.
        manifest: Its manifest.
        settings: What the artifact does not know.
        folders: The published folders; the first is the top of the repository.
        samples: Images to show.
    """
    name, original = settings.repo_id.rpartition("/")[2], settings.base_model or manifest.source
    sections = [
        f"# {name}",
        f"{original}, quantized to 4 bits for {manifest.device} with "
        f"[edgepress](https://pypi.org/project/edgepress/) {manifest.versions.get('edgepress', '')}.",
        "## Sizes",
        _build_size_table(manifest),
        *_describe_exports(artifact, folders),
        *_describe_results(artifact),
        *describe_samples(samples),
        "## How to load it",
        *describe_usage(artifact, folders, settings.repo_id, original),
        "## How it was made",
        f"```bash\nedgepress quantize --recipe {RECIPE_NAME} --model {original}\n```",
        f"[{RECIPE_NAME}]({RECIPE_NAME}) holds every setting. manifest.json holds the hashes of the original's files, "
        "of the calibration prompts and of the result, and the error of every layer. `sha256sum -c SHA256SUMS` checks "
        "this repository.",
        *_describe_verification(folders),
    ]
    return "\n\n".join(sections) + "\n"


def _build_size_table(manifest: Manifest) -> str:
    rows = [
        [name, f"{size.get('before', 0) / 1e6:.2f}", f"{size.get('after', 0) / 1e6:.2f}"]
        for name, size in manifest.sizes.items()
        if size.get("before")
    ]
    return render_table(("component", "before, MB", "after, MB"), rows, numbers={1, 2})


def _describe_exports(artifact: Artifact, folders: Sequence[str]) -> list[str]:
    rows = []
    for folder in (name for name in folders if name in WEIGHT_EXPORTS):
        for component, record in read_weight_export(artifact.path / folder).components.items():
            difference = f"within {record.max_difference:.2g} of a step" if record.max_difference else "equal"
            rows.append([folder, component, f"{record.bytes / 1e6:.2f}", f"{record.bits_per_weight:.3f}", difference])
    header = ("export", "component", "MB", "bits per weight", "quantized weights")
    return [render_table(header, rows, numbers={2, 3})] if rows else []


def _describe_results(artifact: Artifact) -> list[str]:
    """The report of the last evaluation, whose tables name prompts, seeds and intervals.

    Files are named without their folders: those are of the computer where it was made, and often of its user.
    """
    file = artifact.evaluation / REPORT_NAME
    if not file.is_file():
        return ["## Quality", "Not evaluated. `edgepress evaluate` compares it with the original."]
    lines = LOCAL_FOLDERS.sub("", file.read_text("utf-8")).strip().splitlines()
    return ["## Quality", "\n".join(f"#{line}" if line.startswith("##") else line for line in lines)]


def _describe_verification(folders: Sequence[str]) -> list[str]:
    notes = [f"- {UNVERIFIED[folder]}" for folder in folders if folder in UNVERIFIED]
    return ["## What is not verified", "\n".join(notes)] if notes else []
