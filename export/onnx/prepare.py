"""Plans an export: opens its inputs, and checks everything that can be wrong before anything is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ...common.errors import UserError
from ...models.base.host import Host, load_host
from ...models.base.image_size import check_image_size
from ...pipelines.sampling import read_native_size
from ...recipes.key_errors import RecipeValueError, checking_key
from ...recipes.schema import ExportSettings
from ...storage.checkpoint import Checkpoint
from ...storage.layout import Artifact
from ...storage.preflight import check_disk_space, is_within
from ..graph.external_weights import WeightSource
from ..graph.int4_operands import to_dequantize_linear_operand, to_matmul_nbits_operand
from ..graph.int8_operands import to_int8_operand, to_matmul_8bits_operand
from ..graph.lowering import SUPPORTED_OPSETS
from ..graph.passes.dequantize_linear import MIN_OPSET as DEQUANTIZE_MIN_OPSET
from ..graph.preflight import check_export
from ..graph.source_model import SourcePipeline, open_source
from .tensorrt import get_unsupported_reason

ImageSizes = Sequence[tuple[int, int]]
GRAPH_BYTES = 2**18  # of a graph without weights, and what describes it; real ones are smaller


@dataclass(frozen=True)
class ExportPlan:
    """The checked inputs of an export.

    Attributes:
        source: The pipeline.
        host: The host of its family; None if the family has none.
        settings: Settings of the export.
        sizes: Heights and widths in pixels of the images to check.
        solutions: Solutions that replace a component's own weights, by component.
        weights: Weights of each component, those of its solution included.
    """

    source: SourcePipeline
    host: Host | None
    settings: ExportSettings
    sizes: ImageSizes
    solutions: Mapping[str, Checkpoint]
    weights: Mapping[str, WeightSource] = field(repr=False)

    @property
    def is_w8a8(self) -> bool:
        """Whether weights and activations are INT8."""
        return self.settings.precision == "w8a8"

    @property
    def is_fp16(self) -> bool:
        """Whether unquantized values are float16."""
        settings = self.settings
        return (settings.float_dtype if settings.precision == "int4" else settings.precision) == "fp16"

    @property
    def int4_format(self) -> str | None:
        """The format of INT4 linear layers, `ort` or `qdq`; None where there are none."""
        return self.settings.format if self.settings.precision == "int4" else None

    def estimate_bytes(self) -> int:
        """Estimates what the export takes on the disk: all graphs with their weights. It is never too little."""
        graphs = self.source.family.graphs
        unused = [graph for graph in self.source.family.optional_graphs if graph.submodule and graph not in graphs]
        floats, is_int4 = 2 if self.is_fp16 else 4, self.settings.precision == "int4"
        total = len(graphs) * GRAPH_BYTES
        for name, weights in self.weights.items():
            prefixes = tuple(f"{graph.submodule}." for graph in unused if graph.component == name)
            total += weights.estimate_bytes(floats, is_int4, is_int4 or self.is_w8a8, prefixes)
        folders = self.source.list_tokenizer_folders()
        return total + sum(file.stat().st_size for folder in folders for file in folder.iterdir() if file.is_file())

    @property
    def uses_int8_matmul(self) -> bool:
        """Whether graphs multiply in int8, an error that parity must tell from mistakes."""
        return self.is_w8a8 or bool(self.settings.precision == "int4" and self.settings.accuracy_level)

    @property
    def tensorrt_unsupported_reason(self) -> str:
        """Why TensorRT cannot read the INT4 weights; empty if it can, or if the format is not for TensorRT."""
        weights = self.weights.values() if self.int4_format == "qdq" else ()
        return get_unsupported_reason(
            layout.block_size for source in weights for layout in source.int4_linears.values()
        )


def plan_export(source: Path, output: Path, settings: ExportSettings, sizes: ImageSizes) -> ExportPlan:
    """Opens and checks the inputs of an export.

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
    check_export(pipeline, Artifact(output).onnx)
    host = load_host(pipeline.family, pipeline.configs) if pipeline.family.host else None
    sizes = sizes or [(read_native_size(pipeline.folder),) * 2]
    _check_shapes(pipeline, host, settings, sizes)
    pipeline.check_weights()
    for prompt_format in host.prompt_formats if host is not None else ():
        has_template = prompt_format.chat_template_kwargs is not None
        pipeline.read_tokenizer_files(prompt_format.tokenizer, has_template, prompt_format.is_padded)
    components = list(dict.fromkeys(graph.component for graph in pipeline.family.graphs))
    is_signed = settings.precision == "int4" and settings.format == "qdq"
    is_qdq = settings.format == "qdq"
    open_weights = partial(
        WeightSource,
        to_operand=to_dequantize_linear_operand if is_signed else to_matmul_nbits_operand,
        to_int8_operand=to_int8_operand if is_qdq or settings.precision == "w8a8" else to_matmul_8bits_operand,
    )
    weights = {name: open_weights(pipeline.open_checkpoint(name)) for name in components}
    _check_submodules(pipeline)
    if settings.precision == "int4" and not any(source.int4_linears for source in weights.values()):
        problem = (
            f"{pipeline.folder} has no INT4 weights. Quantize it with 'edgepress quantize', or pass --precision fp32."
        )
        raise RecipeValueError("export.precision", settings.precision, problem)
    solutions: dict[str, Checkpoint] = {}
    if is_signed:
        asymmetric = [name for name, source in weights.items() if source.has_zero_points]
        solutions = {name: _get_symmetric_solution(pipeline, name) for name in asymmetric}
    elif settings.precision == "w8a8":
        solutions = _find_int8_solutions(pipeline, components, settings)
    for name, solution in solutions.items():
        weights[name] = open_weights(pipeline.open_checkpoint(name), solution)
    plan = ExportPlan(pipeline, host, settings, sizes, solutions, weights)
    check_disk_space(output, plan.estimate_bytes())
    return plan


def _check_opset(settings: ExportSettings) -> None:
    """Raises UserError where the opset is not supported, or too low for the format."""
    is_signed = settings.precision == "int4" and settings.format == "qdq"
    lowest = DEQUANTIZE_MIN_OPSET if is_signed else min(SUPPORTED_OPSETS)
    if not lowest <= settings.opset <= max(SUPPORTED_OPSETS):
        raise UserError(
            f"Opset {settings.opset} does not support {settings.precision} in the format {settings.format}. "
            f"Choose an --opset from {lowest} to {max(SUPPORTED_OPSETS)}."
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


def _get_symmetric_solution(pipeline: SourcePipeline, component: str) -> Checkpoint:
    solution = pipeline.find_symmetric_solution(component)
    if solution is None:
        raise UserError(
            f"The {component} in {pipeline.folder} has zero points, which the format qdq does not support. Quantize "
            "with an additional symmetric scheme (quantize.extra_schemes: {qdq: {group_size: 128, symmetric: true}})."
        )
    return solution


def _find_int8_solutions(
    pipeline: SourcePipeline, components: Sequence[str], settings: ExportSettings
) -> dict[str, Checkpoint]:
    """Returns the INT8 solutions of the components that have one.

    Raises:
        UserError: No component has one, or the format does not support the activations.
    """
    if settings.format == "qdq" and settings.activations == "dynamic":
        raise UserError(
            "The format qdq does not support dynamic activations. Pass --activations static, or --format ort."
        )
    candidates = {name: pipeline.find_int8_solution(name, settings.activations) for name in components}
    solutions = {name: solution for name, solution in candidates.items() if solution is not None}
    if not solutions:
        raise UserError(
            f"{pipeline.folder} has no INT8 solution with {settings.activations} activations. Quantize with an "
            "additional scheme (quantize.extra_schemes: {w8a8: {bits: 8, group_size: channel, symmetric: true, "
            f"narrow_range: true, activations: {settings.activations}}}}})."
        )
    return solutions
