"""Measures exporting a full-size component to ONNX, and loading and running it with ONNX Runtime.

Run by `make bench-onnx-full-size`. The weights are random 4-bit codes in the shapes of a published model
(benchmarks/synthetic/quantized.py), so the work is measured. Exporting is compared with copying the component's bytes,
interleaved, with the files in the page cache and not, with traced graphs cached and not. The other components are tiny,
and the time of tracing them is subtracted. Each command is its own process, measured from outside.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import click
import onnx
import yaml

from ...common.markdown_table import render_table
from ..common.process import Cost, measure_command
from ..common.report import write_section

COMPONENTS = ("transformer", "text_encoder")
SIZE = (256, 256)  # pixels
CHUNK_SIZE = 2**24  # bytes read at once
SETTINGS = {"precision": "int4", "format": "ort", "accuracy_level": 4}
PAGE_CACHE_STATES = {"cold": "not in the page cache", "warm": "in the page cache"}
TRACE_CACHE_STATES = {"first": "the first time", "again": "again"}
CacheState = tuple[str, str]  # keys of PAGE_CACHE_STATES and TRACE_CACHE_STATES
CACHE_STATES: list[CacheState] = list(product(PAGE_CACHE_STATES, TRACE_CACHE_STATES))
CACHE_FOLDER = "cache"  # with the cached traces
RATIO_HEADER = [
    "files", "copying, s", "exporting, s", "exporting / copying", "copying, CPU s", "exporting everything, CPU s",
]  # fmt: skip
CHECK_SCRIPT = "import onnx, sys; onnx.checker.check_model(sys.argv[1])"


@dataclass(frozen=True)
class ExportRun:
    """One export.

    Attributes:
        cost: Cost of the process.
        tracing: Seconds of tracing the measured component.
        other_tracing: Seconds of tracing the other components.
    """

    cost: Cost
    tracing: float
    other_tracing: float

    @property
    def seconds(self) -> float:
        """Time of the export without tracing the other components."""
        return self.cost.seconds - self.other_tracing


@dataclass(frozen=True)
class ComponentCosts:
    """The costs of one component.

    Attributes:
        component: Name of the component.
        exports: Exports, by the state of the page cache and of the trace cache.
        copies: Copies of the component, by the state of the page cache.
        check: Cost of `onnx.checker`.
        run: Cost of loading and running the graph.
        graph_times: What single_graph.py wrote.
        graph: File of the graph.
    """

    component: str
    exports: Mapping[CacheState, list[ExportRun]]
    copies: Mapping[str, list[Cost]]
    check: Cost
    run: Cost
    graph_times: dict[str, Any] = field(repr=False)
    graph: Path

    @property
    def weights(self) -> list[Path]:
        """The files that hold the graph's weights."""
        return sorted(self.graph.parent.glob(f"{self.component}-*.safetensors"))


def measure_component(component: str, folder: Path, runs: int, layers: int | None) -> ComponentCosts:
    """Measures one component. All files except those of the last export are removed."""
    pipeline = prepare_pipeline(component, folder, layers)
    output, source = folder / f"exported-{component}", pipeline / component
    exports: dict[CacheState, list[ExportRun]] = {state: [] for state in CACHE_STATES}
    copies: dict[str, list[Cost]] = {page_cache: [] for page_cache in PAGE_CACHE_STATES}
    for _ in range(runs):
        for page_cache in PAGE_CACHE_STATES:
            set_page_cache(page_cache, source)
            copies[page_cache].append(copy_folder(source, folder / "copy"))
            shutil.rmtree(folder / CACHE_FOLDER, ignore_errors=True)
            for trace_cache in TRACE_CACHE_STATES:
                set_page_cache(page_cache, source)
                exports[page_cache, trace_cache].append(export_pipeline(component, pipeline, output))
    graph = output / "onnx" / f"{component}.onnx"
    check = measure_command([sys.executable, "-c", CHECK_SCRIPT, str(graph)], folder / "check.log")
    run, graph_times = run_graph(component, output, folder)
    return ComponentCosts(component, exports, copies, check, run, graph_times, graph)


def get_pipeline_folder(component: str, folder: Path, layers: int | None) -> Path:
    """Returns where the pipeline with one 4-bit full-size component is, or will be."""
    return folder / (f"random-{component}-{layers}-layers" if layers else f"random-{component}")


def prepare_pipeline(component: str, folder: Path, layers: int | None) -> Path:
    """Writes the pipeline with one 4-bit full-size component, if it does not exist yet, and returns its folder."""
    pipeline = get_pipeline_folder(component, folder, layers)
    if pipeline.exists():
        return pipeline
    options = ["--component", component, "--output", str(pipeline)]
    if layers:
        options += ["--layers", str(layers)]
    command = [sys.executable, "-m", "edgepress.benchmarks.synthetic.quantized", *options]
    measure_command(command, folder / "generate.log")
    return pipeline


def export_pipeline(component: str, pipeline: Path, output: Path) -> ExportRun:
    """Exports the pipeline in place of an earlier export."""
    shutil.rmtree(output, ignore_errors=True)
    recipe, tracing_file = output.parent / "export.yaml", output.parent / "tracing.json"
    recipe.write_text(yaml.safe_dump({"device": "full-size", "export": SETTINGS}), "utf-8")
    command = ["-m", "edgepress.benchmarks.onnx.export_timer", *map(str, (recipe, pipeline, output, tracing_file))]
    cache = f"XDG_CACHE_HOME={(output.parent / CACHE_FOLDER).absolute()}"
    cost = measure_command(["env", cache, sys.executable, *command], output.parent / "export.log")
    tracing: dict[str, float] = json.loads(tracing_file.read_text("utf-8"))
    component_tracing = tracing.pop(component)
    return ExportRun(cost, component_tracing, sum(tracing.values()))


def copy_folder(source: Path, target: Path) -> Cost:
    """Copies a folder, writes the copy to the disk, and removes it."""
    command = ["sh", "-c", 'cp -r "$0" "$1" && sync "$1"/*', str(source), str(target)]
    try:
        return measure_command(command, target.parent / "copy.log")
    finally:
        shutil.rmtree(target, ignore_errors=True)


def run_graph(component: str, output: Path, folder: Path) -> tuple[Cost, dict[str, Any]]:
    """Loads and runs a component's graph with ONNX Runtime; returns the cost and what single_graph.py wrote."""
    result = folder / "times"
    arguments = [str(argument) for argument in (output, component, *SIZE, result)]
    command = [sys.executable, "-m", "edgepress.benchmarks.onnx.single_graph", *arguments]
    return measure_command(command, folder / "run.log"), json.loads(result.with_suffix(".json").read_text("utf-8"))


def set_page_cache(state: str, source: Path) -> None:
    """Reads all files of a folder into the page cache ("warm") or evicts them from it ("cold")."""
    for file in source.iterdir():
        with file.open("rb") as stream:
            if state == "cold":
                os.fsync(stream.fileno())
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while stream.read(CHUNK_SIZE):
                    pass


# ---------------------------------------------------------------- the section


def render_section(costs: ComponentCosts) -> str:
    """Returns the section of a component in docs/benchmarks/onnx.md."""
    exports = [export for exports in costs.exports.values() for export in exports]
    tracing = [
        export.tracing
        for (_, trace_cache), exports in costs.exports.items()
        for export in exports
        if trace_cache == "first"
    ]
    sizes = [file.stat().st_size for file in costs.weights]
    largest_constant = max(_list_inline_tensor_sizes(costs.graph), default=0)
    peak = max(export.cost.peak_rss for export in exports)
    rows = [
        ["tracing, part of exporting", f"{_format_spread(tracing)} s the first time"],
        ["peak RSS of exporting", f"{peak / 2**30:.2f} GiB"],
        ["graph", f"{costs.graph.stat().st_size / 1e6:.2f} MB, the largest constant in it {largest_constant:,} bytes"],
        ["weights", f"{sum(sizes) / 1e9:.2f} GB in {len(sizes)} files, the largest {max(sizes) / 1e9:.2f} GB"],
        ["`onnx.checker` by path", f"passed in {costs.check.seconds:.0f} s, {costs.check.peak_rss / 1e9:.2f} GB"],
        ["loading and the first run", f"{costs.graph_times['first']:.1f} s"],
        ["a later run", f"{statistics.median(costs.graph_times['later']):.1f} s"],
        ["peak RSS of loading and running", f"{costs.run.peak_rss / 1e9:.2f} GB"],
        ["the same, relative to the size of its files", f"{costs.run.peak_rss / sum(sizes):.2f}"],
    ]
    ratios = [_render_ratio_row(state, costs.exports[state], costs.copies[state[0]]) for state in CACHE_STATES]
    return "\n\n".join(
        [
            f"## What a full-size {costs.component.replace('_', ' ')} costs in ONNX",
            "`edgepress export onnx --precision int4 --no-check`, the whole process including start-up, from a 4-bit "
            "component (random codes in the true shapes) in a pipeline whose other components are tiny; tracing those "
            'is subtracted. Copying is `cp` and `sync` of the component. "Again" means that the traced graphs are '
            "already in the cache, as they are for every later export of the same model. "
            f"{len(costs.copies['cold'])} interleaved runs of each, median and range.",
            render_table(RATIO_HEADER, ratios),
            "Then run with ONNX Runtime as `edgepress generate` does: a prompt of "
            f"{costs.graph_times['tokens']} tokens, an image of {SIZE[0]} x {SIZE[1]} pixels.",
            render_table(["", "value"], rows),
        ]
    )


def _render_ratio_row(state: CacheState, exports: Sequence[ExportRun], copies: Sequence[Cost]) -> list[str]:
    page_cache, trace_cache = state
    export_seconds, copy_seconds = [export.seconds for export in exports], [copy.seconds for copy in copies]
    ratios = [export / copy for export, copy in zip(export_seconds, copy_seconds, strict=True)]
    cpu = [copy.cpu for copy in copies], [export.cost.cpu for export in exports]
    spreads = [_format_spread(values) for values in (copy_seconds, export_seconds, ratios, *cpu)]
    return [f"{PAGE_CACHE_STATES[page_cache]}, {TRACE_CACHE_STATES[trace_cache]}", *spreads]


def _format_spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} [{min(values):.1f}, {max(values):.1f}]"


def _list_inline_tensor_sizes(graph: Path) -> list[int]:
    """Returns the sizes in bytes of the tensors in a graph's own file."""
    model = onnx.load(str(graph), load_external_data=False)
    constants = [attribute.t for node in model.graph.node for attribute in node.attribute if attribute.HasField("t")]
    tensors = [*model.graph.initializer, *constants]
    return [tensor.ByteSize() for tensor in tensors if tensor.data_location != onnx.TensorProto.EXTERNAL]


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("artifacts/full-size"), show_default=True)
@click.option("--component", type=click.Choice([*COMPONENTS, "both"]), default="both", show_default=True)
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Runs of exporting and of copying.")
@click.option("--layers", type=click.IntRange(2), help="A pipeline with fewer layers, as a rehearsal. Not reported.")
@click.option("--keep", is_flag=True, help="Keep the random pipeline and the export: 8 GB for the transformer.")
def main(folder: Path, component: str, runs: int, layers: int | None, keep: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in COMPONENTS if component == "both" else (component,):
        body = render_section(measure_component(name, folder, runs, layers))
        if not layers:
            write_section(f"onnx-full-size-{name}".replace("_", "-"), "make bench-onnx-full-size", body)
        click.echo(body)
        shutil.rmtree(folder / CACHE_FOLDER, ignore_errors=True)
        if not keep:
            shutil.rmtree(folder / f"exported-{name}")
            shutil.rmtree(get_pipeline_folder(name, folder, layers))


if __name__ == "__main__":
    main()
