"""What `edgepress info` says of a folder, and how it is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..common.errors import escape_controls
from ..common.text_table import align_rows
from ..storage.integrity import FileProblem
from ..storage.layout import WEIGHT_EXPORTS


@dataclass(frozen=True)
class ComponentInfo:
    """A component of a pipeline.

    Attributes:
        name: Its folder.
        model_class: Its class in diffusers or transformers.
        parameters: Number of weights; 4-bit codes are counted one by one. 0 for what has no weights.
        nbytes: Bytes of all its tensors.
        dtypes: Share of the bytes in each dtype, such as `{"int4": 0.9, "bf16": 0.1}`.
        quantization: Its `quantization_config`, in short; empty if it has none.
    """

    name: str
    model_class: str
    parameters: int
    nbytes: int
    dtypes: Mapping[str, float]
    quantization: str = ""

    @property
    def bits_per_weight(self) -> float | None:
        """Stored bits for each weight, scales and zero points included; None without weights."""
        return self.nbytes * 8 / self.parameters if self.parameters else None


@dataclass(frozen=True)
class LayerSelection:
    """Which linear layers of a component `edgepress quantize` would store in 4 bits.

    Attributes:
        component: The component's folder.
        quantized: Paths of the layers that would be quantized.
        kept_layers: Paths of the others, by the reason why they stay in floating point.
        quantized_share: Share of the weights of the component's linear layers that would be quantized.
        convolutions: Paths of the convolutions that would be stored in 8 bits with `conv: int8` in the recipe.
        kept_convolutions: Paths of the others, by the reason why they stay in floating point.
    """

    component: str
    quantized: tuple[str, ...]
    kept_layers: Mapping[str, tuple[str, ...]]
    quantized_share: float
    convolutions: tuple[str, ...] = ()
    kept_convolutions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __str__(self) -> str:
        reasons = [f"{len(paths)} ({reason})" for reason, paths in self.kept_layers.items()]
        total = len(self.quantized) + sum(map(len, self.kept_layers.values()))
        summary = f"{len(self.quantized)} of {total} ({self.quantized_share:.1%} of their weights)"
        lines = [f"  {self.component}: {summary}" + (f"; kept: {', '.join(reasons)}" if reasons else "")]
        reasons = [f"{len(paths)} ({reason})" for reason, paths in self.kept_convolutions.items()]
        if self.convolutions:
            line = f"    and {len(self.convolutions)} convolutions in 8 bits, if the recipe says 'conv: int8'"
            lines.append(line + (f"; kept: {', '.join(reasons)}" if reasons else ""))
        return "\n".join(lines)


@dataclass(frozen=True)
class PipelineInfo:
    """A diffusers pipeline.

    Attributes:
        folder: Its folder.
        pipeline_class: Class that model_index.json names.
        components: Its components, in the order of model_index.json.
        supported: What edgepress can do with it: some of `quantize`, `export onnx`, `export rknn`, `generate`. Unless
            `layers` were asked for, the names and shapes of weights have not been compared with their classes.
        layers: What would be quantized, if that was asked for; empty for a quantized pipeline.
        problem: Why it can do nothing with it as it is, in a sentence or two; empty if nothing is wrong.
        export_problem: Why it cannot be exported, though its family can; empty if nothing is wrong.
    """

    folder: Path
    pipeline_class: str
    components: tuple[ComponentInfo, ...]
    supported: tuple[str, ...]
    layers: tuple[LayerSelection, ...] = ()
    problem: str = ""
    export_problem: str = ""

    def __str__(self) -> str:
        lines = [f"Pipeline {self.folder}: {self.pipeline_class}", *_component_table(self.components), ""]
        if self.layers:
            listed = [line for selection in self.layers for line in str(selection).split("\n")]
            lines += ["Linear layers that would be stored in 4 bits:", *listed, ""]
        can = ", ".join(self.supported) if self.supported else "only evaluate it"
        lines.append(f"edgepress can: {f'nothing. {self.problem}' if self.problem else can}")
        lines += [f"It cannot be exported. {self.export_problem}"] if self.export_problem else []
        return "\n".join(map(escape_controls, lines))

    def list_layers(self) -> str:
        """Lists every linear layer with what would become of it, one a line."""
        lines = []
        for selection in self.layers:
            lines += [f"{selection.component}.{path}: 4 bits" for path in selection.quantized]
            for reason, paths in selection.kept_layers.items():
                lines += [f"{selection.component}.{path}: kept, {reason}" for path in paths]
            lines += [f"{selection.component}.{path}: 8 bits with 'conv: int8'" for path in selection.convolutions]
            for reason, paths in selection.kept_convolutions.items():
                lines += [f"{selection.component}.{path}: kept, {reason}" for path in paths]
        return "\n".join(map(escape_controls, lines))


@dataclass(frozen=True)
class ExportInfo:
    """An export in an artifact.

    Attributes:
        folder: Its folder.
        pipeline_class: Class of the pipeline.
        summary: Precision and format in a few words.
        graphs: Names of its graphs or parts; of weights for other programs, of its components.
        nbytes: Bytes of all its files.
        verification: How it was compared with torch, in a few words.
        problems: What is not as it was published: files that are missing, added, or differ in size, header or content;
            of large files the content is not read.
    """

    folder: Path
    pipeline_class: str
    summary: str
    graphs: tuple[str, ...]
    nbytes: int
    verification: str
    problems: tuple[FileProblem, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"Export {self.folder}: {self.pipeline_class}, {self.summary}, {self.nbytes / 1e6:.1f} MB",
            f"  {'components' if self.folder.name in WEIGHT_EXPORTS else 'graphs'}: {', '.join(self.graphs)}",
            f"  {self.verification}",
            *_list_problems(self.problems, self.folder),
        ]
        return "\n".join(map(escape_controls, lines))


@dataclass(frozen=True)
class ArtifactInfo:
    """An artifact: what was made for one device.

    Attributes:
        folder: Its folder.
        device: Device of its recipe; empty if there is no manifest.
        source: Pipeline that it was made from; empty if there is no manifest.
        method: Quantization method or steps; empty if nothing was quantized.
        model: The quantized pipeline, if any.
        exports: Its exports.
        evaluation: Verdict and scores of the last evaluation; empty if there is none.
        problems: What is not as it was published in its model and exports, as in `ExportInfo`.
    """

    folder: Path
    device: str
    source: str
    method: str
    model: PipelineInfo | None
    exports: tuple[ExportInfo, ...]
    evaluation: str
    problems: tuple[FileProblem, ...] = ()

    def __str__(self) -> str:
        title = f"Artifact {self.folder}" + (f" for {self.device}, made from {self.source}" if self.device else "")
        lines = [title]
        if self.model:
            lines += ["", f"model/: {self.model.pipeline_class}, method {self.method}"]
            lines += _component_table(self.model.components)
        for export in self.exports:
            lines += ["", *str(export).splitlines()]
        lines += ["", f"Evaluation: {self.evaluation or 'none yet; run edgepress evaluate'}"]
        lines += _list_problems(self.problems, self.folder)
        return "\n".join(map(escape_controls, lines))


def _list_problems(problems: Sequence[FileProblem], folder: Path) -> list[str]:
    if not problems:
        return []
    lines = [f"  {problem.path}: {problem.status}: it {problem.reason}" for problem in problems]
    return ["", "Not as it was published:", *lines, advise_verification(folder)]


def advise_verification(folder: Path) -> str:
    """What to do about files of an artifact that are not as they were published."""
    return f"'edgepress verify {folder}' compares every byte. Copy the artifact again, or make it again."


def _component_table(components: tuple[ComponentInfo, ...]) -> list[str]:
    rows = [("component", "class", "parameters", "MB", "bits/weight", "stored as")]
    for component in components:
        bits = component.bits_per_weight
        stored = ", ".join(f"{share:.0%} {dtype}" for dtype, share in component.dtypes.items())
        rows.append(
            (
                component.name,
                component.model_class,
                f"{component.parameters:,}" if component.parameters else "",
                f"{component.nbytes / 1e6:.2f}" if component.nbytes else "",
                f"{bits:.3f}" if bits else "",
                f"{stored} ({component.quantization})" if component.quantization else stored,
            )
        )
    return align_rows(rows, {2, 3, 4})
