"""TODO"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...common.errors import UserError
from ...models.base.host import Host, load_host
from ...pipelines.sampling import read_native_size
from ...recipes.schema import ExportSettings
from ...storage.checkpoint import Checkpoint
from ..graph.external_weights import WeightSource
from ..graph.int4_operands import to_dequantize_linear_operand, to_matmul_nbits_operand
from ..graph.lowering import SUPPORTED_OPSETS
from ..graph.passes.dequantize_linear import MIN_OPSET as DEQUANTIZE_OPSET
from ..graph.source_model import SourcePipeline, open_source, read_tokenizer_files
from .job import TOKENIZER_FILES, ExportJob, Sizes


def plan_export(source: Path, output: Path, settings: ExportSettings, sizes: Sizes) -> ExportJob:
    """Looks at all that can be wrong before anything is written.

    Raises:
        UserError: it is.
    """
    _check_opset(settings)
    model = open_source(source).with_extra_graphs(settings.extra_graphs)
    if output.resolve().is_relative_to(model.folder.resolve()):
        raise UserError(f"The output {output} lies inside the model folder {model.folder}; give another --output.")
    host = load_host(model.family, model.configs()) if model.family.host else None
    sizes = sizes or [(read_native_size(model.folder),) * 2]
    for size in sizes:
        model.require_valid_size(*size) if host is None else host.latent_shape(*size)
    if host is None and settings.shapes == "fixed":
        raise UserError(
            f"Nothing here knows the shapes of the class {model.family.pipeline_class}; give shapes: dynamic."
        )
    if host is not None:
        _check_tokens(host, settings)
        read_tokenizer_files(model, TOKENIZER_FILES)
    components = list(dict.fromkeys(graph.component for graph in model.family.graphs))
    signed = settings.precision == "int4" and settings.format == "qdq"
    plain = {name: WeightSource(model.open_checkpoint(name)) for name in components}
    _check_parts(model)
    if settings.precision == "int4" and not any(part.int4_linears for part in plain.values()):
        raise UserError(
            f"{model.folder} has no 4-bit weights; press it with 'edgepress quantize', or give --precision fp32."
        )
    asking = [name for name, part in plain.items() if signed and part.has_zero_points]
    solutions = {name: _symmetric(model, name) for name in asking}
    if settings.precision == "w8a8":
        solutions = _in_bytes(model, components, settings)
    if signed or solutions:
        operands = to_dequantize_linear_operand if signed else to_matmul_nbits_operand
        plain = {name: WeightSource(model.open_checkpoint(name), solutions.get(name), operands) for name in components}
    return ExportJob(model, host, settings, sizes, solutions, plain)


def _symmetric(model: SourcePipeline, component: str) -> Checkpoint:
    solution = model.find_symmetric_solution(component)
    if solution is None:
        raise UserError(
            f"The {component} in {model.folder} has zero points, which the flavour qdq has no room for; quantize with "
            "a symmetric solution beside it (quantize.also: {qdq: {group_size: 128, zero_point: false}})."
        )
    return solution


def _in_bytes(model: SourcePipeline, components: Sequence[str], settings: ExportSettings) -> dict[str, Checkpoint]:
    """The solutions for products of 8-bit integers, of the components that were pressed."""
    if settings.format == "qdq" and settings.activations == "dynamic":
        raise UserError(
            "The flavour qdq has no scale of each token; give --activations static, or --flavour ort, which has one."
        )
    found = {name: model.find_int8_solution(name, settings.activations) for name in components}
    solutions = {name: solution for name, solution in found.items() if solution is not None}
    if not solutions:
        raise UserError(
            f"{model.folder} has no solution for {settings.activations} activations in 8 bits; quantize with one "
            "beside it (quantize.also: {w8a8: {bits: 8, group_size: channel, zero_point: false, narrow: true, "
            f"activations: {settings.activations}}}}})."
        )
    return solutions


def _check_tokens(host: Host, settings: ExportSettings) -> None:
    """Raises UserError where graphs would read more of a prompt than the pipeline does."""
    if settings.max_prompt_tokens > host.max_tokens:
        raise UserError(
            f"The pipeline reads {host.max_tokens} tokens of a prompt at most, and export.tokens asks for "
            f"{settings.max_prompt_tokens}; give export.tokens {host.max_tokens} or fewer."
        )


def _check_parts(model: SourcePipeline) -> None:
    """Raises UserError where a graph that was asked for needs what a component has lost."""
    for graph in model.family.graphs:
        names = model.open_checkpoint(graph.component).names() if graph.submodule else ()
        if graph.submodule and not any(name.startswith(f"{graph.submodule}.") for name in names):
            raise UserError(
                f"{model.folder / graph.component} has lost its {graph.submodule} to pressing; leave {graph.name} out, or "
                "export it from the pipeline that was pressed."
            )


def _check_opset(settings: ExportSettings) -> None:
    """Raises UserError where the opset is not one that can be written, or lacks what the flavour needs."""
    least = DEQUANTIZE_OPSET if settings.precision == "int4" and settings.format == "qdq" else min(SUPPORTED_OPSETS)
    if not least <= settings.opset <= max(SUPPORTED_OPSETS):
        raise UserError(
            f"Opset {settings.opset} cannot be exported with {settings.precision} and the flavour "
            f"{settings.format}; give --opset {least} to {max(SUPPORTED_OPSETS)}."
        )
