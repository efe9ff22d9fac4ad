"""Says what a folder is, a pipeline or an artifact, from configs and headers alone: no weight is read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field, ValidationError

from ..common.arguments import check_arguments
from ..common.errors import UserError
from ..pipelines.hub import DEMO_PIPELINE
from ..storage.complete_artifact import find_incomplete_files, find_incomplete_folder
from ..storage.files import read_json_object
from ..storage.layout import (
    CONFIG_NAME,
    EVALUATION_RESULTS,
    MODEL_INDEX,
    WEIGHT_EXPORTS,
    Artifact,
    is_export,
    is_pipeline,
    is_weight_export,
    locate_folder,
)
from ..storage.manifest import Manifest, read_manifest
from ..storage.outdated_results import find_outdated_results
from ..storage.parameter_count import count_tensor_parameters, read_loaded_headers
from ..storage.pipeline_config import read_onnx_config, read_rknn_config
from ..storage.recognition import PathKind, is_artifact, recognize_path, reject_path
from ..storage.relative_path import is_file_name
from ..storage.safetensors_header import TensorHeader
from ..storage.weight_export import read_weight_export
from ..storage.weight_files import select_weight_files
from .folder_info import ArtifactInfo, ComponentInfo, ExportInfo, LayerSelection, PipelineInfo, advise_verification

if TYPE_CHECKING:
    from ..quantize.plan import ComponentPlan

BITS_OF = {"F64": 64, "F32": 32, "BF16": 16, "F16": 16, "I8": 8, "U8": 8}


class GateSummary(BaseModel):
    """A gate in results.json, in part."""

    name: str = Field(description="What is limited.")
    verdict: str = Field(description="`passed`, `failed`, `inconclusive` or `not measured`.")


class EvaluationSummary(BaseModel):
    """The verdict in results.json, which needs no package of the evaluation."""

    verdict: str | None = Field(default=None, description="The verdict of all gates; null if there are none.")
    gates: list[GateSummary] | None = Field(default=None, description="The gates.")


Info = PipelineInfo | ExportInfo | ArtifactInfo


@check_arguments
def info(path: str | Path, layers: bool = False) -> Info:
    """Says what a folder is, from configs and headers alone.

    Args:
        path: A diffusers pipeline or `demo`, an artifact, or the folder of one of its exports.
        layers: Whether to find out which layers of a pipeline would be quantized, or why none can be. This imports
            torch and the libraries of the pipeline's classes.

    Returns:
        What it is. `print` shows it; `to_dict` of this module turns it into JSON.

    Raises:
        UserError: It is none of these, or a file in it is corrupt.
    """
    folder = DEMO_PIPELINE if str(path) == "demo" and not Path(path).exists() else Path(path)
    kind = recognize_path(folder)
    if kind is PathKind.PIPELINE:
        return _inspect_pipeline(folder, _find_pipeline_problem(folder), layers)
    if kind is PathKind.MODEL:
        return _inspect_pipeline(folder, _find_model_problem(folder) or _find_pipeline_problem(folder), layers)
    if kind is PathKind.EXPORT:
        return replace(_inspect_export(folder), problems=tuple(find_incomplete_folder(locate_folder(folder))))
    if kind is PathKind.ARTIFACT:
        return _inspect_artifact(Artifact(folder))
    raise reject_path(folder, "Give the top folder of a diffusers pipeline or of an artifact", _is_described)


def _is_described(path: Path) -> bool:
    return is_pipeline(path) or is_export(path) or is_artifact(path)


def to_dict(result: Info) -> dict[str, Any]:
    """The result of `info` as JSON, with its kind and the bits of each component."""
    kinds = {PipelineInfo: "pipeline", ExportInfo: "export", ArtifactInfo: "artifact"}
    content: dict[str, Any] = json.loads(json.dumps({"kind": kinds[type(result)]} | asdict(result), default=str))
    return content


def _inspect_pipeline(
    folder: Path, problem: str = "", with_layers: bool = False, is_published: bool = False
) -> PipelineInfo:
    index = _read_json(folder / MODEL_INDEX)
    entries = {
        name: value[1]
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and isinstance(value[1], str) and is_file_name(name)
    }
    pipeline_class = str(index.get("_class_name", ""))
    components = tuple(_inspect_component(folder / name, str(cls)) for name, cls in entries.items())
    export_problem = "" if problem or is_published else _find_export_problem(folder, pipeline_class)
    supported = () if problem else _supported(pipeline_class, components, bool(export_problem))
    layers: tuple[LayerSelection, ...] = ()
    if with_layers and "quantize" in supported:
        layers, problem = _select_layers(folder)
        supported = () if problem else supported
    return PipelineInfo(folder, pipeline_class, components, supported, layers, problem, export_problem)


def _find_model_problem(folder: Path) -> str:
    """The first file of an artifact's model that is not as it was published."""
    artifact = Artifact.containing(folder)
    problem = next(find_incomplete_folder(artifact.model), None)
    if problem is None:
        return ""
    return f"{artifact.path / problem.path} {problem.reason}. {advise_verification(artifact.path)}"


def _find_pipeline_problem(folder: Path) -> str:
    """What the commands would refuse the pipeline for, by the same checks; those that need torch are left out."""
    from ..pipelines.preflight import check_pipeline, check_weight_formats

    try:
        check_pipeline(folder)
        check_weight_formats(folder)
    except UserError as error:
        return str(error)
    return ""


def _find_export_problem(folder: Path, pipeline_class: str) -> str:
    """What exporting the pipeline would be refused for, though its family can be exported."""
    from ..models.registry import load_families
    from ..pipelines.preflight import check_exported_schedule

    family = load_families().get(pipeline_class)
    try:
        if family is not None:
            check_exported_schedule(folder, family)
    except UserError as error:
        return str(error)
    return ""


def _select_layers(folder: Path) -> tuple[tuple[LayerSelection, ...], str]:
    """Returns what would be quantized of each component, or why nothing can be."""
    from ..pipelines.tokenizer_loading import check_processors
    from ..quantize.plan import build_plan
    from ..recipes.schema import QuantizationSettings

    try:
        check_processors(folder)
        plan = build_plan(folder, QuantizationSettings())
    except UserError as error:
        return (), str(error)
    return tuple(map(_summarize_layers, plan.components)), ""


def _summarize_layers(component: ComponentPlan) -> LayerSelection:
    quantized = tuple(linear for block in component.blocks for linear in block.linears)
    kept_layers: dict[str, tuple[str, ...]] = {}
    for path, reason in component.kept_linears.items():
        kept_layers[reason.value] = (*kept_layers.get(reason.value, ()), path)
    quantized_weights = sum(component.linear_weights[path] for path in quantized)
    total = quantized_weights + sum(component.linear_weights[path] for path in component.kept_linears)
    share = quantized_weights / total if total else 0.0
    kept_convolutions: dict[str, tuple[str, ...]] = {}
    for path, why in component.explained_convolutions.items():
        if why is not None:
            kept_convolutions[why.value] = (*kept_convolutions.get(why.value, ()), path)
    return LayerSelection(component.name, quantized, kept_layers, share, component.convolutions, kept_convolutions)


def _inspect_component(folder: Path, model_class: str) -> ComponentInfo:
    has_weights = any(folder.glob("*.safetensors*"))
    headers = read_loaded_headers(select_weight_files(folder)) if has_weights else []
    config = _read_json(folder / "config.json") if headers else {}
    sizes: Counter[str] = Counter()
    for header in headers:
        sizes[_dtype_of(header)] += header.nbytes
    nbytes = sum(sizes.values())
    dtypes = {dtype: size / nbytes for dtype, size in sizes.most_common()} if nbytes else {}
    return ComponentInfo(
        folder.name,
        model_class,
        sum(map(count_tensor_parameters, headers)),
        nbytes,
        dtypes,
        _describe_quantization(config.get("quantization_config")),
    )


def _dtype_of(header: TensorHeader) -> str:
    if header.name.endswith((".qweight", ".qzeros")):
        return "int4"
    names = {"F": "fp", "B": "bf", "I": "int", "U": "uint"}
    if header.dtype not in BITS_OF:
        return header.dtype.lower()
    return f"{names[header.dtype[0]]}{BITS_OF[header.dtype]}"


def _describe_quantization(config: Any) -> str:
    if not isinstance(config, Mapping):
        return ""
    method, bits, group = config.get("quant_method", "unknown method"), config.get("bits"), config.get("group_size")
    phrases = [str(method), *([f"{bits} bits"] if bits else []), *([f"groups of {group}"] if group else [])]
    return ", ".join(phrases)


def _supported(pipeline_class: str, components: tuple[ComponentInfo, ...], is_refused: bool) -> tuple[str, ...]:
    from ..models.registry import load_families

    family = load_families().get(pipeline_class)
    is_quantized = any(component.quantization for component in components)
    if family is None:  # whether that is true shows when its layers are selected
        return () if is_quantized else ("quantize",)
    can = {
        "quantize": not is_quantized and any(component.role != "other" for component in family.components),
        "export onnx": bool(family.graphs) and not is_refused,
        "export rknn": bool(family.npu) and not is_refused,
        "generate": bool(family.host) and not is_refused,
    }
    return tuple(name for name, possible in can.items() if possible)


def _inspect_export(folder: Path) -> ExportInfo:
    nbytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if "target" in _read_json(folder / CONFIG_NAME):
        rknn = read_rknn_config(folder)
        parts = [part for graph in rknn.graphs.values() for part in graph]
        precisions = ", ".join(sorted({part.precision or "CPU" for part in parts}))
        summary = f"RKNN for {rknn.target}, {precisions}, {rknn.size[0]}x{rknn.size[1]}"
        status = "verified on a board" if rknn.verified_on_a_board else "simulated, not verified on a board"
        return ExportInfo(folder, rknn.family, summary, tuple(part.name for part in parts), nbytes, status)
    onnx = read_onnx_config(folder)
    summary = f"ONNX {onnx.precision}, format {onnx.format}, opset {onnx.opset}, {onnx.shapes} shapes"
    return ExportInfo(folder, onnx.family, summary, tuple(onnx.graphs), nbytes, _describe_parity(onnx.parity))


def _inspect_weight_export(folder: Path) -> ExportInfo:
    export = read_weight_export(folder)
    components, types = export.components, Counter[str]()
    for record in components.values():
        types.update(record.types)
    summary = f"{export.format}: {', '.join(f'{number} {name}' for name, number in types.items())}"
    largest = max((record.max_difference for record in components.values()), default=0.0)
    difference = f"quantized weights {f'within {largest:.2g} steps of' if largest else 'equal to'} model/"
    nbytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return ExportInfo(folder, export.family, summary, tuple(components), nbytes, difference)


def _describe_parity(parity: Mapping[str, Any]) -> str:
    if not parity:
        return "not compared with torch"
    last = list(parity.values())[-1]
    worst = max(error.relative for error in last.graphs.values())
    image = ""
    if last.image_compared:
        image = ", image equal" if last.psnr is None else f", image {last.psnr:.1f} dB PSNR"
    return f"largest relative error to torch {worst:.2g}{image}"


def _inspect_artifact(artifact: Artifact) -> ArtifactInfo:
    manifest = read_manifest(artifact.path)
    exports = [folder for folder in (artifact.onnx, artifact.rknn) if is_export(folder)]
    weights = [artifact.path / name for name in WEIGHT_EXPORTS if is_weight_export(artifact.path / name)]
    return ArtifactInfo(
        artifact.path,
        manifest.device if manifest else "",
        manifest.source if manifest else "",
        _describe_method(manifest),
        _inspect_pipeline(artifact.model, is_published=True) if artifact.has_model else None,
        (*map(_inspect_export, exports), *map(_inspect_weight_export, weights)),
        _describe_evaluation(artifact),
        tuple(find_incomplete_files(artifact)),
    )


def _describe_method(manifest: Manifest | None) -> str:
    if manifest is None:
        return ""
    settings = manifest.recipe.get("quantize")
    if not isinstance(settings, Mapping):
        return ""
    steps = settings.get("steps")
    return "+".join(map(str, steps)) if isinstance(steps, list) and steps else str(settings.get("method", ""))


def _describe_evaluation(artifact: Artifact) -> str:
    file = artifact.evaluation / EVALUATION_RESULTS
    if not file.exists():
        return ""
    try:
        results = EvaluationSummary.model_validate(_read_json(file))
    except ValidationError:
        return f"unreadable, {file}; run edgepress evaluate again"
    failed = [gate.name for gate in results.gates or () if gate.verdict == "failed"]
    outdated = ", of other files than are there now" if file in find_outdated_results(artifact) else ""
    verdict = results.verdict or "measured, no gates"
    return verdict + (f" ({', '.join(failed)})" if failed else "") + f", {file}{outdated}"


def _read_json(file: Path) -> dict[str, Any]:
    return read_json_object(file) if file.exists() else {}
