"""Plans an export whose inputs have been checked: opens their weights, and checks what needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from ...common.errors import UserError
from ...models.base.host import Host
from ...recipes.schema import ExportSettings
from ...storage.checkpoint import Checkpoint
from ...storage.preflight import check_disk_space
from ..graph.external_weights import WeightSource
from ..graph.int4_operands import to_dequantize_linear_operand, to_matmul_nbits_operand
from ..graph.int8_operands import to_int8_operand, to_matmul_8bits_operand
from ..graph.source_model import SourcePipeline
from .preflight import SYMMETRIC_ADVICE, ExportInputs, ImageSizes
from .tensorrt import get_unsupported_reason

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


def plan_export(inputs: ExportInputs) -> ExportPlan:
    """Opens the weights of an export, and checks what needs their classes or values.

    Args:
        inputs: What `check_inputs` returned.

    Raises:
        UserError: An input is invalid.
    """
    pipeline, settings = inputs.source, inputs.settings
    pipeline.check_weights()
    host = inputs.host
    for prompt_format in host.prompt_formats if host is not None else ():
        has_template = prompt_format.chat_template_kwargs is not None
        pipeline.read_tokenizer_files(prompt_format.tokenizer, has_template, prompt_format.is_padded)
    is_signed = settings.precision == "int4" and settings.format == "qdq"
    is_qdq = settings.format == "qdq"
    open_weights = partial(
        WeightSource,
        to_operand=to_dequantize_linear_operand if is_signed else to_matmul_nbits_operand,
        to_int8_operand=to_int8_operand if is_qdq or settings.precision == "w8a8" else to_matmul_8bits_operand,
    )
    weights = {name: open_weights(pipeline.open_checkpoint(name)) for name in inputs.components}
    solutions = dict(inputs.int8_solutions)
    if is_signed:
        asymmetric = [name for name, source in weights.items() if source.has_zero_points]
        solutions = {name: _get_symmetric_solution(pipeline, name) for name in asymmetric}
    for name, solution in solutions.items():
        weights[name] = open_weights(pipeline.open_checkpoint(name), solution)
    plan = ExportPlan(pipeline, host, settings, inputs.sizes, solutions, weights)
    check_disk_space(inputs.output, plan.estimate_bytes())
    return plan


def _get_symmetric_solution(pipeline: SourcePipeline, component: str) -> Checkpoint:
    solution = pipeline.find_symmetric_solution(component)
    if solution is None:
        raise UserError(
            f"The {component} in {pipeline.folder} has zero points, which the format qdq does not support. "
            f"{SYMMETRIC_ADVICE}"
        )
    return solution
