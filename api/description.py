"""Describes an artifact as a whole: artifact.json, a model card and a bill of materials, from what its parts record."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from .. import __version__
from ..common.arguments import check_arguments
from ..common.errors import UserError
from ..common.requirements import requires_extra
from ..models.registry import get_family
from ..recipes.loader import validate_settings
from ..recipes.schema import Recipe
from ..storage.artifact_schema import (
    ArtifactDescription,
    BenchDescription,
    ComponentDescription,
    GraphDescription,
    MemoryPlanDescription,
    QuantizationDescription,
    ScoreDescription,
    SourceDescription,
    Status,
)
from ..storage.atomic_file import atomic_write
from ..storage.checksums import read_checksums, write_checksums
from ..storage.complete_artifact import require_complete
from ..storage.emulation import read_emulation
from ..storage.files import FileRecord, digest_files, read_json_object, record_file, write_json
from ..storage.layout import (
    BENCH_RESULTS,
    CARD_NAME,
    DESCRIPTION_NAME,
    EVALUATION_RESULTS,
    MANIFEST,
    MODEL,
    ONNX,
    RKNN,
    SBOM_NAME,
    WEIGHT_EXPORTS,
    Artifact,
    is_repository,
    is_weight_export,
)
from ..storage.manifest import Manifest, hash_published_model, read_manifest
from ..storage.outdated_results import find_outdated_results
from ..storage.pipeline_config import OnnxPipelineConfig, RknnPipelineConfig, read_onnx_config, read_rknn_config
from ..storage.published_model import describe_validation_error
from ..storage.publishing import artifact_lock
from ..storage.recognition import is_artifact, reject_path
from ..storage.source_location import find_source
from ..storage.weight_export import WeightExport, read_weight_export
from .licenses import require_license
from .model_card import CARD_BEGINNING, render_model_card
from .sbom import build_sbom

if TYPE_CHECKING:
    from ..evaluate.results.schema import VariantSummary

LICENSE = re.compile(r"^license:\s*[\"']?([^\"'\n#]+)", re.MULTILINE)
SOURCE_README = "README.source.md"  # in a quantized pipeline, the README.md of the original one
ANY_MEMORY = 2.0**20  # GiB, into which everything fits
CPU_DEVICES = ("x86",)  # on which exports are compared with torch


@check_arguments
@requires_extra("runtime")
def describe(path: str | Path, license: str | None = None) -> ArtifactDescription:  # noqa: A002  as it is called
    """Writes artifact.json, README.md and sbom.cdx.json into an artifact, and lists them in SHA256SUMS.

    The same artifact gives the same bytes: they hold no time, no host and no absolute path.

    Args:
        path: The artifact.
        license: Licence of the original pipeline as an SPDX id; None for what its README.md states.

    Raises:
        UserError: It is no artifact, what its parts record is corrupt or missing, the licence is no identifier, or
            there is a README.md or a bill of materials that edgepress did not write.
    """
    artifact = Artifact(Path(path))
    if license is not None:
        require_license(license)
    description = build_description(artifact, license)
    require_complete(artifact)
    _require_own_documents(artifact)
    with artifact_lock(artifact.path):
        _write_text(render_model_card(description), artifact.path / CARD_NAME)
        write_json(build_sbom(description), artifact.path / SBOM_NAME)
        documents = tuple(record_file(artifact.path, name) for name in (CARD_NAME, SBOM_NAME))
        description = description.model_copy(update={"documents": documents})
        write_json(description.model_dump(mode="json"), artifact.path / DESCRIPTION_NAME)
        _list_in_checksums(artifact, documents)
    return description


def build_description(
    artifact: Artifact,
    license: str | None = None,  # noqa: A002
    has_plan: bool = True,
) -> ArtifactDescription:
    """Describes an artifact; nothing is written. See `describe`.

    Args:
        artifact: The artifact.
        license: Licence of the original pipeline.
        has_plan: Whether to plan the memory, for which torch is imported.
    """
    if is_repository(artifact.path):
        raise UserError(
            f"{artifact.path} is a repository that 'edgepress publish' wrote. Give the artifact that it was made of."
        )
    if not is_artifact(artifact.path):
        raise reject_path(artifact.path, "Give an artifact that edgepress made", is_artifact)
    manifest = read_manifest(artifact.path) if artifact.has_model else None
    onnx = read_onnx_config(artifact.onnx) if artifact.has_onnx else None
    rknn = read_rknn_config(artifact.rknn) if artifact.has_rknn else None
    outdated = find_outdated_results(artifact)
    bench = _describe_bench(artifact, outdated)
    evaluation = _describe_evaluation(artifact, outdated)
    return ArtifactDescription(
        device=manifest.device if manifest else artifact.path.resolve().name,
        pipeline_class=_read_pipeline_class(artifact, onnx, rknn),
        source=_describe_source(artifact, manifest, license),
        versions={"edgepress": __version__} | (dict(manifest.versions) if manifest else {}),
        components=_describe_components(artifact, manifest, onnx, rknn, bench, evaluation),
        quantization=_describe_quantization(manifest) if manifest else None,
        presets=next((dict(config.presets) for config in (onnx, rknn) if config), {}),
        memory_plan=_plan_memory(artifact, manifest, onnx) if has_plan and manifest and onnx else None,
        evaluation=evaluation,
        benchmark=bench,
        documents=(),
    )


def _require_own_documents(artifact: Artifact) -> None:
    """Raises UserError where a document would replace a file of the user's."""
    listed = read_checksums(artifact.path) or {}
    is_described = artifact.description.exists()
    for name in (CARD_NAME, SBOM_NAME):
        file = artifact.path / name
        if not file.exists() or name in listed or (is_described and name == SBOM_NAME):
            continue
        if not (is_described and file.read_text("utf-8", "replace").startswith(CARD_BEGINNING)):
            raise UserError(f"{file} was not made by edgepress. Move it to another place.")


def _write_text(text: str, file: Path) -> None:
    def write(temporary: Path) -> None:
        temporary.write_text(text, "utf-8")

    atomic_write(file, write)


def _list_in_checksums(artifact: Artifact, documents: tuple[FileRecord, ...]) -> None:
    """Adds the description to SHA256SUMS, which lists the model and its manifest if there is one."""
    listed = {record.path: record for record in (*documents, record_file(artifact.path, DESCRIPTION_NAME))}
    earlier = read_checksums(artifact.path) or {}
    if MANIFEST not in earlier:
        manifest = read_manifest(artifact.path)  # artifacts of earlier releases do not list their model
        earlier = (hash_published_model(artifact, manifest) if manifest else {}) | earlier
    unchanged = [
        FileRecord(path=name, bytes=0, sha256=sha256)  # of bytes nothing is written
        for name, sha256 in earlier.items()
        if name not in listed
    ]
    write_checksums([*unchanged, *listed.values()], artifact.path)


def _read_pipeline_class(artifact: Artifact, onnx: OnnxPipelineConfig | None, rknn: RknnPipelineConfig | None) -> str:
    config = onnx or rknn
    if config is not None:
        return config.family
    return str(read_json_object(artifact.model / "model_index.json").get("_class_name", ""))


def _describe_source(artifact: Artifact, manifest: Manifest | None, license: str | None) -> SourceDescription:  # noqa: A002
    source = find_source(artifact)
    parts = source.parts if source else ()
    revision = parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else None
    if license is None and (artifact.model / SOURCE_README).is_file():
        stated = LICENSE.search((artifact.model / SOURCE_README).read_text("utf-8", "replace"))
        license = stated[1].strip() if stated else None  # noqa: A001
    return SourceDescription(model=manifest.source if manifest else "", revision=revision, license=license)


def _describe_quantization(manifest: Manifest) -> QuantizationDescription:
    return QuantizationDescription(
        settings=manifest.recipe.get("quantize", {}),
        calibration=manifest.recipe.get("calibration", {}),
        prompts_sha256=manifest.prompts_sha256,
        loras=tuple(map(str, manifest.loras)),
    )


# ---------------------------------------------------------------- components


def _describe_components(
    artifact: Artifact,
    manifest: Manifest | None,
    onnx: OnnxPipelineConfig | None,
    rknn: RknnPipelineConfig | None,
    bench: BenchDescription | None,
    evaluation: ScoreDescription | None,
) -> dict[str, ComponentDescription]:
    components: dict[str, ComponentDescription] = {}
    if manifest is not None:
        status: tuple[Status, str] = ("estimated", "quantized, and not run on the device")
        if evaluation is not None:
            status = ("simulated", "evaluated in PyTorch where it was made")
        components[MODEL] = _make_component(MODEL, manifest.files, "int4", status, {})
    if onnx is not None:
        status = _judge_onnx(artifact, manifest, onnx, bench)
        components[ONNX] = _make_component(ONNX, onnx.files, onnx.precision, status, _describe_graphs(onnx))
    if rknn is not None:
        components[RKNN] = _describe_rknn(rknn)
    for name in WEIGHT_EXPORTS:
        if is_weight_export(artifact.path / name):
            components[name] = _describe_weight_export(name, read_weight_export(artifact.path / name))
    if rknn is None and manifest is not None and manifest.recipe.get("rknn"):
        reason = "the recipe asks for parts for an NPU, and none were exported"
        components[RKNN] = _make_component(RKNN, (), "", ("refused", reason), {})
    return components


def _describe_weight_export(name: str, export: WeightExport) -> ComponentDescription:
    kinds = {kind: None for record in export.components.values() for kind in record.types}
    difference = max((record.max_difference for record in export.components.values()), default=0.0)
    carried = f"carried over within {difference:.2g} of a step" if difference else "carried over exactly"
    reason = f"weights {carried}; the program that reads them was not run"
    return _make_component(name, export.files, ", ".join(kinds), ("estimated", reason), {})


def _make_component(
    folder: str,
    files: Any,
    precision: str,
    status: tuple[Status, str],
    graphs: Mapping[str, GraphDescription],
) -> ComponentDescription:
    return ComponentDescription(
        status=status[0],
        reason=status[1],
        precision=precision,
        sha256=digest_files(files) if files else None,
        bytes=sum(file.bytes for file in files),
        files=tuple(file.model_copy(update={"path": f"{folder}/{file.path}"}) for file in files),
        graphs=dict(graphs),
    )


def _judge_onnx(
    artifact: Artifact, manifest: Manifest | None, config: OnnxPipelineConfig, bench: BenchDescription | None
) -> tuple[Status, str]:
    device = manifest.device if manifest else artifact.path.name
    if not config.parity:
        return "estimated", "exported without a comparison with torch"
    if device in CPU_DEVICES:
        return "verified", "compared with torch in ONNX Runtime on x86"
    if bench is not None and bench.kind == "measured" and "x86" not in bench.machine:
        return "verified", f"compared with torch on x86, and run on {bench.machine}"
    emulation = read_emulation(artifact)
    if emulation is not None and emulation.passed:
        place = f"with instructions of a {emulation.processor} under qemu ({emulation.engine})"
        return "emulated", f"compared with torch {place}, never run on the device"
    return "simulated", "compared with torch in ONNX Runtime where it was exported, never run on the device"


def _describe_graphs(config: OnnxPipelineConfig) -> dict[str, GraphDescription]:
    errors = list(config.parity.values())
    relative = {name: error.relative for name, error in errors[-1].graphs.items()} if errors else {}
    return {
        name: GraphDescription(inputs=graph.inputs, outputs=graph.outputs, relative_error=relative.get(name))
        for name, graph in config.graphs.items()
    }


def _describe_rknn(config: RknnPipelineConfig) -> ComponentDescription:
    parts = {part.name: part for graph in config.graphs.values() for part in graph}
    precisions = sorted({part.precision or "int4 on the CPU" for part in parts.values()})
    graphs = {
        name: GraphDescription(
            inputs=(), outputs=(), relative_error=part.simulated.relative_error if part.simulated else None
        )
        for name, part in parts.items()
    }
    status: tuple[Status, str] = ("simulated", f"built and simulated with rknn-toolkit2 {config.toolkit}")
    if config.verified_on_a_board:
        status = ("verified", f"run on a board with the {config.target}")
    return _make_component(RKNN, config.files, ", ".join(precisions), status, graphs)


# ---------------------------------------------------------------- plan and results


def _plan_memory(artifact: Artifact, manifest: Manifest, onnx: OnnxPipelineConfig) -> MemoryPlanDescription | None:
    """Plans what was exported. Boards have no torch, which planning needs: there an artifact is described without."""
    recipe = validate_settings(Recipe, {"device": manifest.device} | manifest.recipe)
    if recipe.hardware is None or find_spec("torch") is None:
        return None
    has_memory = bool(recipe.hardware.memory)  # of machines of any memory, only what graphs take is known
    extra = (graph.name for graph in get_family(onnx.family).optional_graphs if graph.name in onnx.graphs)
    exported = {key: getattr(onnx, key) for key in ("precision", "format", "accuracy_level", "float_dtype")}
    export = recipe.export.model_copy(update={**exported, "extra_graphs": tuple(extra)})
    from ..export.planning.planner import plan_device

    try:
        memory = None if has_memory else ANY_MEMORY
        plan = plan_device(artifact.path, recipe.model_copy(update={"export": export}), memory=memory)
    except UserError:  # of a pipeline without a host, whose shapes nobody knows
        return None
    return MemoryPlanDescription(
        verdict=str(plan.verdict) if has_memory else None,
        size=plan.size,
        resident_bytes=plan.resident_bytes,
        phased_bytes=plan.phased_bytes,
        usable_bytes=plan.usable_bytes if has_memory else None,
        graph_bytes={graph.name: graph.bytes for graph in plan.graphs},
        floor_seconds=plan.floor_seconds,
    )


def _describe_evaluation(artifact: Artifact, outdated: list[Path]) -> ScoreDescription | None:
    from ..evaluate.results.results_file import load_results

    file = artifact.evaluation / EVALUATION_RESULTS
    if not file.exists() or file in outdated:
        return None
    results = load_results(file)
    num_prompts = max((variant.num_prompts for variant in results.variants.values()), default=0)
    scores = {name: _list_means(variant) for name, variant in results.variants.items()}
    return ScoreDescription(verdict=results.verdict, num_prompts=num_prompts, scores=scores)


def _list_means(variant: VariantSummary) -> dict[str, float]:
    """The mean of each score over all pairs: of the comparison, or of the candidate's images alone."""
    overall = variant.groups[0] if variant.groups else None
    if overall is None:
        return {}
    means = {name: score.mean.mean for name, score in overall.pair_scores.items()}
    return means | {name: score.variant.mean for name, score in overall.image_scores.items()}


def _describe_bench(artifact: Artifact, outdated: list[Path]) -> BenchDescription | None:
    from ..perf.schema import BenchResults

    file = artifact.bench / BENCH_RESULTS
    if not file.exists() or file in outdated:
        return None
    try:
        results = BenchResults.model_validate(read_json_object(file))
    except ValidationError as error:
        reason = describe_validation_error(error)
        raise UserError(f"{file} is damaged ({reason}). Run 'edgepress bench' again, or remove it.") from error
    latencies = results.summary.latencies.get("image")
    return BenchDescription(
        kind="simulated" if results.simulated else "measured",
        machine=f"{results.machine.model or results.machine.cpu or 'not known'}, {results.machine.architecture}",
        seconds_per_image=latencies.mean if latencies else results.summary.first_image,
        peak_bytes=results.memory.peak,
    )
