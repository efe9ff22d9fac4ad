"""Checks an export from its settings, configs and headers, without torch: what is refused here is refused at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...common.errors import UserError
from ...models.base.host import Host, load_host
from ...models.base.image_size import check_image_size
from ...pipelines.preflight import check_weight_formats
from ...pipelines.sampling import read_native_size
from ...recipes.key_errors import RecipeValueError, checking_key
from ...recipes.schema import ExportSettings, Recipe
from ...storage.checkpoint import Checkpoint
from ...storage.layout import Artifact
from ...storage.preflight import is_within
from ...storage.provenance import require_same_model
from ..graph.opsets import DEQUANTIZE_LINEAR_MIN_OPSET, SUPPORTED_OPSETS
from ..graph.preflight import check_export
from ..graph.source_model import SourcePipeline, open_source

ImageSizes = Sequence[tuple[int, int]]
SYMMETRIC_ADVICE = (
    "Quantize with an additional symmetric scheme (quantize.extra_schemes: {qdq: {group_size: 128, symmetric: true}})."
)


@dataclass(frozen=True)
class ExportInputs:
    """The inputs of an export, as far as they can be checked without torch.

    Attributes:
        source: The pipeline.
        output: The artifact folder.
        host: The host of its family; None if the family has none.
        settings: Settings of the export.
        sizes: Heights and widths in pixels of the images to check.
        components: The components that have graphs.
        int8_solutions: With w8a8, the solutions that replace a component's own weights, by component.
    """

    source: SourcePipeline
    output: Path
    host: Host | None
    settings: ExportSettings
    sizes: ImageSizes
    components: Sequence[str]
    int8_solutions: Mapping[str, Checkpoint] = field(default_factory=dict)


def check_inputs(source: Path, output: Path, settings: ExportSettings, sizes: ImageSizes) -> ExportInputs:
    """Opens the inputs of an export, and checks everything that needs no class of a library and no weight.

    Args:
        source: A diffusers folder, quantized or not, or an artifact folder.
        output: The artifact folder to export to.
        settings: Settings of the export.
        sizes: Heights and widths in pixels of the images to check; empty for the model's native size.

    Raises:
        UserError: An input is invalid.
    """
    with checking_key("export.opset", settings.opset):
        _check_opset(settings)
    pipeline = open_source(source, settings.extra_graphs)
    if is_within(output, pipeline.folder):
        raise UserError(f"The output {output} is inside the model folder {pipeline.folder}. Choose another --output.")
    require_same_model(pipeline.folder, Artifact(output))
    check_export(pipeline, Artifact(output).onnx)
    host = load_host(pipeline.family, pipeline.configs) if pipeline.family.host else None
    sizes = sizes or [(read_native_size(pipeline.folder),) * 2]
    _check_shapes(pipeline, host, settings, sizes)
    check_weight_formats(pipeline.folder)
    _check_submodules(pipeline)
    components = list(dict.fromkeys(graph.component for graph in pipeline.family.graphs))
    if settings.precision == "int4" and not any(map(pipeline.has_int4, components)):
        problem = (
            f"{pipeline.folder} has no INT4 weights. Quantize it with 'edgepress quantize', or pass --precision fp32."
        )
        raise RecipeValueError("export.precision", settings.precision, problem)
    solutions = _find_int8_solutions(pipeline, components, settings) if settings.precision == "w8a8" else {}
    return ExportInputs(pipeline, output, host, settings, sizes, components, solutions)


def check_recipe(source: Path, recipe: Recipe) -> None:
    """Checks what a recipe says of the export, before the pipeline is quantized by it.

    Args:
        source: A diffusers folder in its original precision, of a family with graphs.
        recipe: The recipe for a pipeline of this size.

    Raises:
        UserError: Graphs cannot be exported as the recipe says, or not from what it quantizes.
    """
    settings, schemes = recipe.export, recipe.quantize.extra_schemes.values()
    with checking_key("export.opset", settings.opset):
        _check_opset(settings)
    pipeline = open_source(source, settings.extra_graphs)
    host = load_host(pipeline.family, pipeline.configs) if pipeline.family.host else None
    _check_shapes(pipeline, host, settings, settings.sizes)
    if settings.precision == "w8a8":
        _check_activations(settings)
        if not any(scheme.activations == settings.activations for scheme in schemes):
            problem = f"no scheme of the recipe has {settings.activations} activations. {_advise_int8(settings)}"
            raise RecipeValueError("export.precision", settings.precision, problem)
    has_symmetric = any(scheme.is_symmetric_int4 for scheme in (recipe.quantize.scheme, *schemes))
    if settings.precision == "int4" and settings.format == "qdq" and not has_symmetric:
        problem = f"the format does not support zero points, which all schemes have. {SYMMETRIC_ADVICE}"
        raise RecipeValueError("export.format", settings.format, problem)


def _check_opset(settings: ExportSettings) -> None:
    """Raises UserError where the opset is not supported, or too low for the format."""
    is_signed = settings.precision == "int4" and settings.format == "qdq"
    lowest = DEQUANTIZE_LINEAR_MIN_OPSET if is_signed else min(SUPPORTED_OPSETS)
    if not lowest <= settings.opset <= max(SUPPORTED_OPSETS):
        raise UserError(
            f"Opset {settings.opset} does not support {settings.precision} in the format {settings.format}. "
            f"Choose an opset from {lowest} to {max(SUPPORTED_OPSETS)}."
        )


def _check_shapes(pipeline: SourcePipeline, host: Host | None, settings: ExportSettings, sizes: ImageSizes) -> None:
    """Raises UserError where an image size or prompt length is not possible, or not known to be."""
    for size in sizes:
        with checking_key("export.sizes", tuple(sizes)):
            check_image_size(pipeline.family, pipeline.configs, *size)
    if host is None and settings.shapes == "fixed":
        problem = f"fixed shapes are not supported for {pipeline.family.pipeline_class}. Use 'shapes: dynamic'."
        raise RecipeValueError("export.shapes", settings.shapes, problem)
    formats = host.prompt_formats if host is not None else ()
    limits = [prompt_format.max_tokens for prompt_format in formats if not prompt_format.is_padded]
    max_tokens = max(limits, default=settings.max_prompt_tokens)
    if settings.max_prompt_tokens > max_tokens:
        problem = f"the pipeline reads at most {max_tokens} tokens of a prompt. Choose {max_tokens} or less."
        raise RecipeValueError("export.max_prompt_tokens", settings.max_prompt_tokens, problem)


def _check_submodules(pipeline: SourcePipeline) -> None:
    """Raises UserError where a graph needs a submodule that was removed from its component."""
    for graph in pipeline.family.graphs:
        names = pipeline.open_checkpoint(graph.component).names() if graph.submodule else ()
        if graph.submodule and not any(name.startswith(f"{graph.submodule}.") for name in names):
            raise UserError(
                f"The {graph.submodule} was removed from {pipeline.folder / graph.component} during quantization. "
                f"Leave out {graph.name}, or export it from the original pipeline."
            )


def _find_int8_solutions(
    pipeline: SourcePipeline, components: Sequence[str], settings: ExportSettings
) -> dict[str, Checkpoint]:
    """Returns the INT8 solutions of the components that have one.

    Raises:
        UserError: No component has one, or the format does not support the activations.
    """
    _check_activations(settings)
    candidates = {name: pipeline.find_int8_solution(name, settings.activations) for name in components}
    solutions = {name: solution for name, solution in candidates.items() if solution is not None}
    if not solutions:
        advice = _advise_int8(settings)
        raise UserError(f"{pipeline.folder} has no INT8 solution with {settings.activations} activations. {advice}")
    return solutions


def _check_activations(settings: ExportSettings) -> None:
    if settings.format == "qdq" and settings.activations == "dynamic":
        problem = "the format qdq does not support dynamic activations. Choose static ones, or the format ort."
        raise RecipeValueError("export.activations", settings.activations, problem)


def _advise_int8(settings: ExportSettings) -> str:
    return (
        "Quantize with an additional scheme (quantize.extra_schemes: {w8a8: {bits: 8, group_size: channel, "
        f"symmetric: true, narrow_range: true, activations: {settings.activations}}}}})."
    )
