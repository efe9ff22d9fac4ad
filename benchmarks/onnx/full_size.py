"""What exporting a component of full size to ONNX costs, and what ONNX Runtime takes to load and run it.

`make bench-onnx-full-size`. The weights are random codes of 4 bits in the true shapes (demo/pressed.py): what is
measured is the work. Exporting is held against copying the component's bytes, in turns, the files in the page cache and
not, the first time and once the traced graphs are kept; the pipeline's other components are tiny, and what tracing
those takes is subtracted. Each command is a process of its own, seen from outside.
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

from ..common.process import Cost, measure_command
from ..common.report import render_table, write_section

COMPONENTS = ("transformer", "text_encoder")
SIZE = (256, 256)  # pixels
CHUNK_SIZE = 2**24  # bytes read at once
SETTINGS = {"precision": "int4", "flavour": "ort", "accuracy_level": 4}
PAGE_CACHE_STATES = {"cold": "not in the page cache", "warm": "in the page cache"}
TRACE_CACHE_STATES = {"first": "the first time", "again": "again"}
CacheState = tuple[str, str]  # of CALM and of TIMES
CACHE_STATES: list[CacheState] = list(product(PAGE_CACHE_STATES, TRACE_CACHE_STATES))
CACHE_FOLDER = "cache"  # the folder with what programs keep
CPU_HEADER = ("CPU s of copying", "of exporting all")
CHECK_SCRIPT = "import onnx, sys; onnx.checker.check_model(sys.argv[1])"


@dataclass(frozen=True)
class ExportRun:
    """One export: the process's cost, and seconds of tracing the component, and the others."""

    cost: Cost
    tracing: float
    other_tracing: float

    @property
    def seconds(self) -> float:
        return self.cost.seconds - self.other_tracing


@dataclass(frozen=True)
class ComponentCosts:
    """A component's costs: exports and copies in turns, by whether the files were in the page cache.

    exports: by whether traced graphs were kept, too.
    """

    component: str
    exports: Mapping[CacheState, list[ExportRun]]
    copies: Mapping[str, list[Cost]]
    check: Cost
    run: Cost
    graph_times: dict[str, Any] = field(repr=False)  # by steps.py, of the run
    graph: Path

    @property
    def weights(self) -> list[Path]:
        return sorted(self.graph.parent.glob(f"{self.component}-*.safetensors"))


def measure_component(component: str, folder: Path, runs: int, layers: int | None) -> ComponentCosts:
    """Everything of one component; what was written goes, but for the last export."""
    pipeline = prepare_pipeline(component, folder, layers)
    output, source = folder / f"exported-{component}", pipeline / component
    exports: dict[CacheState, list[ExportRun]] = {case: [] for case in CACHE_STATES}
    copies: dict[str, list[Cost]] = {calm: [] for calm in PAGE_CACHE_STATES}
    for _ in range(runs):
        for calm in PAGE_CACHE_STATES:
            set_page_cache(calm, source)
            copies[calm].append(copy_folder(source, folder / "copy"))
            shutil.rmtree(folder / CACHE_FOLDER, ignore_errors=True)
            for time in TRACE_CACHE_STATES:
                set_page_cache(calm, source)
                exports[calm, time].append(export_pipeline(component, pipeline, output))
    graph = output / "onnx" / f"{component}.onnx"
    check = measure_command([sys.executable, "-c", CHECK_SCRIPT, str(graph)], folder / "check.log")
    run, graph_times = run_graph(component, output, folder)
    return ComponentCosts(component, exports, copies, check, run, graph_times, graph)


def prepare_pipeline(component: str, folder: Path, layers: int | None) -> Path:
    """The pipeline with one pressed component of full size, written if it is not there yet."""
    pipeline = folder / (f"random-{component}-{layers}-layers" if layers else f"random-{component}")
    command = [
        sys.executable,
        "-m",
        "edgepress.benchmarks.synthetic.quantized",
        "--component",
        component,
        "--output",
        str(pipeline),
    ]
    measure_command([*command, "--layers", str(layers)] if layers else command, folder / "generate.log")
    return pipeline


def export_pipeline(component: str, pipeline: Path, output: Path) -> ExportRun:
    """Exports the pipeline; an older export goes."""
    shutil.rmtree(output, ignore_errors=True)
    recipe, tracing_file = output.parent / "export.yaml", output.parent / "told.json"
    recipe.write_text(yaml.safe_dump({"device": "full-size", "export": SETTINGS}), "utf-8")
    command = ["-m", "edgepress.benchmarks.onnx.export_timer", *map(str, (recipe, pipeline, output, tracing_file))]
    cache = f"XDG_CACHE_HOME={(output.parent / CACHE_FOLDER).absolute()}"
    cost = measure_command(["env", cache, sys.executable, *command], output.parent / "export.log")
    tracing: dict[str, float] = json.loads(tracing_file.read_text("utf-8"))
    component_tracing = tracing.pop(component)
    return ExportRun(cost, component_tracing, sum(tracing.values()))


def copy_folder(source: Path, target: Path) -> Cost:
    """Copies a folder and puts it on the disk; the copy goes."""
    try:
        return measure_command(
            ["sh", "-c", 'cp -r "$0" "$1" && sync "$1"/*', str(source), str(target)], target.parent / "log"
        )
    finally:
        shutil.rmtree(target, ignore_errors=True)


def run_graph(component: str, output: Path, folder: Path) -> tuple[Cost, dict[str, Any]]:
    """Loads and runs a component's graph with the runtime."""
    result = folder / "ran"
    command = [
        sys.executable,
        "-m",
        "edgepress.benchmarks.onnx.single_graph",
        *map(str, (output, component, *SIZE, result)),
    ]
    return measure_command(command, folder / "run.log"), json.loads(result.with_suffix(".json").read_text("utf-8"))


def set_page_cache(state: str, source: Path) -> None:
    """Puts all files of a folder into the page cache (warm) or out of it (cold)."""
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
    """The body of a component's section in docs/benchmarks.md."""
    runs = len(costs.copies["cold"])
    ratios = [_ratio_row(case, costs.exports[case], costs.copies[case[0]]) for case in CACHE_STATES]
    exports = [export for exports in costs.exports.values() for export in exports]
    traced = [export.tracing for (_, time), exports in costs.exports.items() if time == "first" for export in exports]
    peak = max(export.cost.peak_rss for export in exports)
    weights = sum(file.stat().st_size for file in costs.weights)
    inline = max(_inline_tensor_sizes(costs.graph), default=0)
    rows = [
        ["of exporting, tracing", f"{_format_spread(traced)} s the first time"],
        ["peak RSS of exporting", f"{peak / 2**30:.2f} GiB"],
        ["graph", f"{costs.graph.stat().st_size / 1e6:.2f} MB, the largest constant in it {inline:,} bytes"],
        ["weights", f"{weights / 1e9:.2f} GB in {len(costs.weights)} files, the largest {_largest_file(costs):.2f} GB"],
        ["`onnx.checker` by path", f"passed in {costs.check.seconds:.0f} s, {costs.check.peak_rss / 1e9:.2f} GB"],
        ["loading and the first run", f"{costs.graph_times['first']:.1f} s"],
        ["a later run", f"{statistics.median(costs.graph_times['later']):.1f} s"],
        ["peak RSS of loading and running", f"{costs.run.peak_rss / 1e9:.2f} GB"],
        ["the same, of its files' size", f"{costs.run.peak_rss / weights:.2f}"],
    ]
    parts = [
        f"## What a full-size {costs.component.replace('_', ' ')} costs in ONNX",
        "`edgepress export onnx --precision int4 --no-check`, whole process with start-up, from a component in 4 bits "
        "(random codes in the true shapes) whose pipeline's other components are tiny; tracing those is subtracted. "
        f"Copying is `cp` and `sync` of the component. Again: traced graphs are kept from the first time, as they are "
        f"between all exports of a model. {runs} runs of each in turns, median and range.",
        render_table(["files", "copying, s", "exporting, s", "exporting over copying", *CPU_HEADER], ratios),
        f"Then with ONNX Runtime as `edgepress generate` uses it: a prompt of {costs.graph_times['tokens']} tokens, a picture "
        f"of {SIZE[0]} x {SIZE[1]} pixels.",
        render_table(["", "value"], rows),
    ]
    return "\n\n".join(parts)


def _ratio_row(case: CacheState, exports: Sequence[ExportRun], copies: Sequence[Cost]) -> list[str]:
    export_seconds, copy_seconds = [export.seconds for export in exports], [cost.seconds for cost in copies]
    ratios = [export / copy for export, copy in zip(export_seconds, copy_seconds, strict=True)]
    work = [[copy.cpu for copy in copies], [export.cost.cpu for export in exports]]
    calm, time = case
    return [
        f"{PAGE_CACHE_STATES[calm]}, {TRACE_CACHE_STATES[time]}",
        *(_format_spread(values) for values in (copy_seconds, export_seconds, ratios, *work)),
    ]


def _format_spread(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} [{min(values):.1f}, {max(values):.1f}]"


def _inline_tensor_sizes(graph: Path) -> list[int]:
    """Bytes of every tensor that a graph's own file holds."""
    model = onnx.load(str(graph), load_external_data=False)
    constants = [attribute.t for node in model.graph.node for attribute in node.attribute if attribute.HasField("t")]
    tensors = [*model.graph.initializer, *constants]
    return [tensor.ByteSize() for tensor in tensors if tensor.data_location != onnx.TensorProto.EXTERNAL]


def _largest_file(costs: ComponentCosts) -> float:
    return max(file.stat().st_size for file in costs.weights) / 1e9


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("artifacts/full-size"), show_default=True)
@click.option("--component", type=click.Choice([*COMPONENTS, "both"]), default="both", show_default=True)
@click.option("--runs", type=click.IntRange(1), default=3, show_default=True, help="Of exporting and of copying.")
@click.option("--layers", type=click.IntRange(2), help="Layers instead of all: a rehearsal, not reported.")
@click.option("--keep", is_flag=True, help="Keep the random pipeline and the export, 8 GB for the transformer.")
def main(folder: Path, component: str, runs: int, layers: int | None, keep: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in COMPONENTS if component == "both" else (component,):
        costs = measure_component(name, folder, runs, layers)
        body = render_section(costs)
        if not layers:
            write_section(f"onnx-full-size-{name}".replace("_", "-"), "make bench-onnx-full-size", body)
        click.echo(body)
        shutil.rmtree(folder / CACHE_FOLDER, ignore_errors=True)
        if not keep:
            shutil.rmtree(folder / f"exported-{name}")
            shutil.rmtree(prepare_pipeline(name, folder, layers))


if __name__ == "__main__":
    main()
