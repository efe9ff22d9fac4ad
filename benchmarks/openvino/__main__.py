"""Opens exported graphs in OpenVINO: which open, parity with ONNX Runtime, 4-bit weights in memory, speed beside it.

Run by `make bench-openvino`. OpenVINO runs in its own environment under build/openvino. Graphs are created under
--folder and reused, so that an interrupted run can resume.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from ...common.errors import UserError
from ...common.markdown_table import render_table
from ...common.progress import Progress, progress_bars
from ...models.base.host import load_host
from ...models.registry import get_family
from ...runtime.onnx.exported import load_exported_onnx
from ...runtime.onnx.sessions import SessionPool
from ..common.process import measure_command
from ..common.report import write_section
from ..onnx.graphs.__main__ import CALIBRATION, GRAPH, SIZE, make_cache, select_variants
from ..onnx.graphs.artifact_cache import ArtifactCache
from ..onnx.graphs.runs import format_spread, relative_error, run_graph
from ..onnx.single_graph import Inputs, capture_inputs
from ..peers.environments import ensure_environment
from ..peers.errors import find_cause

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("openvino_worker.py")
NAMES = ("fp32", "fp16", "int4-128-0", "int4-128-4", "int4-qdq", "w8a8-dynamic", "w8a8-static")
GRAPHS = ("text_encoder", "caption", "transformer", "vae_decoder")
PRECISIONS = ("f32", "default")
COMPARED = ("exact", *PRECISIONS)
REPEATS = 3


@dataclass(frozen=True)
class OpenVinoRun:
    """One process that ran a graph with OpenVINO.

    Attributes:
        seconds: Median time of a run.
        memory: Peak memory in bytes.
        precision: What OpenVINO computes in.
        constants: Number of constants by the type in which they are held.
        output: The graph's first output.
    """

    seconds: float
    memory: int
    precision: str
    constants: Mapping[str, int]
    output: NDArray[np.float32]


@dataclass(frozen=True)
class OpenVino:
    """OpenVINO in its environment.

    Attributes:
        python: The environment's interpreter.
        folder: Work folder.
    """

    python: Path
    folder: Path

    def run(self, graph: Path, inputs: Inputs, precision: str, repeats: int = REPEATS) -> OpenVinoRun | str:
        """Runs a graph in a new process; the reason where it fails."""
        stored, result, log = self.folder / "inputs.npz", self.folder / "openvino", self.folder / "openvino.log"
        arrays: dict[str, Any] = dict(inputs)
        np.savez(stored, **arrays)
        arguments = [str(graph.resolve()), str(stored), str(result), precision, str(repeats)]
        try:
            cost = measure_command([str(self.python), "-P", str(WORKER), *arguments], log)
        except click.ClickException:
            return find_cause(log)
        content: dict[str, Any] = json.loads(result.with_suffix(".json").read_text("utf-8"))
        output = np.load(result.with_suffix(".npy"))
        seconds = statistics.median(content["later"])
        return OpenVinoRun(seconds, cost.peak_rss, content["precision"], content["constants"], output)


def capture(artifact: Path, graph: str) -> tuple[Inputs, NDArray[np.float32]]:
    """The inputs of a graph when an image is generated, and what ONNX Runtime makes of them."""
    exported = load_exported_onnx(artifact)
    sessions = SessionPool(exported.graph_files, keep_loaded=False)
    host = load_host(get_family(exported.pipeline_class), exported.host_configs)
    inputs = capture_inputs(graph, host, sessions, SIZE)
    return inputs, sessions(graph, inputs)


def make_graph_cache(pipeline: str, folder: Path) -> ArtifactCache:
    """The cache of a pipeline's variants. The medium one has random weights, so its codes are rounded only."""
    if pipeline == "demo":
        return make_cache(pipeline, folder)
    cache = make_cache(pipeline, folder / "rounded")
    return dataclasses.replace(cache, quantize={**cache.quantize, "method": "rtn"})


# ---------------------------------------------------------------- parity


def render_parity(openvino: OpenVino, artifacts: Mapping[str, Path], progress: Progress) -> str:
    """The table of every graph of every variant: whether it opens, how far it is from ONNX Runtime's output."""
    rows, total = [], len(artifacts) * len(GRAPHS)
    for number, (name, artifact) in enumerate(artifacts.items()):
        (variant,) = select_variants([name])
        for index, graph in enumerate(GRAPHS):
            progress("comparing outputs", number * len(GRAPHS) + index, total)
            rows.append([variant.title, graph, *_compare_graph(openvino, artifact, graph)])
    progress("comparing outputs", total, total)
    return render_table(["graphs", "graph", "exact", "f32", "default", "held in 4 bits"], rows)


def _compare_graph(openvino: OpenVino, artifact: Path, graph: str) -> list[str]:
    try:
        inputs, expected = capture(artifact, graph)
    except (UserError, ValueError) as error:
        return [str(error), "", "", ""]
    runs = [openvino.run(artifact / f"{graph}.onnx", inputs, precision, 1) for precision in COMPARED]
    cells = [run if isinstance(run, str) else _describe_difference(run, expected) for run in runs]
    first = runs[0]
    return [*cells, "" if isinstance(first, str) else describe_constants(first.constants)]


def _describe_difference(run: OpenVinoRun, expected: NDArray[np.float32]) -> str:
    if not np.isfinite(run.output).all():
        return f"{run.precision}: NaN or infinity"
    error = f"{relative_error(run.output, expected):.1e}"
    return error if run.precision == "f32" else f"{error} ({run.precision})"


def describe_constants(constants: Mapping[str, int]) -> str:
    """How many weights are held in 4 bits, of all constants of more than an index's size."""
    small = sum(count for kind, count in constants.items() if kind in ("u4", "i4"))
    total = sum(count for kind, count in constants.items() if kind not in ("i32", "i64"))
    return f"{small / 1e6:.1f} of {total / 1e6:.1f} million" if small else "none"


# ---------------------------------------------------------------- speed


def render_speed(openvino: OpenVino, artifacts: Mapping[str, Path], rounds: int, progress: Progress) -> str:
    """The table of a step of the transformer, with ONNX Runtime and OpenVINO in turns."""
    inputs = {name: capture(artifact, GRAPH)[0] for name, artifact in artifacts.items()}
    seconds: dict[tuple[str, str], list[float]] = {}
    memory: dict[tuple[str, str], list[float]] = {}
    schedule = [(name, engine) for _ in range(rounds) for name in artifacts for engine in ("ort", *PRECISIONS)]
    for number, (name, engine) in enumerate(schedule):
        progress(f"running {GRAPH}", number, len(schedule))
        if engine == "ort":
            measured = run_graph(artifacts[name], GRAPH, SIZE, openvino.folder)
            cost = measured.seconds, measured.memory
        else:
            run = openvino.run(artifacts[name] / f"{GRAPH}.onnx", inputs[name], engine)
            if isinstance(run, str):
                continue
            cost = run.seconds, run.memory
        seconds.setdefault((name, engine), []).append(cost[0])
        memory.setdefault((name, engine), []).append(cost[1])
    progress(f"running {GRAPH}", len(schedule), len(schedule))
    rows = [_render_speed_row(name, seconds, memory) for name in artifacts]
    header = [
        "graph",
        "ONNX Runtime, s",
        "OpenVINO f32, s",
        "default, s",
        "speed-up in f32",
        "by default",
        "peak RSS, MB",
    ]
    return render_table(header, rows)


def _render_speed_row(
    name: str, seconds: Mapping[tuple[str, str], Sequence[float]], memory: Mapping[tuple[str, str], Sequence[float]]
) -> list[str]:
    (variant,) = select_variants([name])
    engines = ("ort", *PRECISIONS)
    times = [f"{statistics.median(seconds[name, e]):.2f}" if (name, e) in seconds else "fails" for e in engines]
    base = seconds[name, "ort"]
    ratios = [
        format_spread([a / b for a, b in zip(base, seconds[name, e], strict=False)]) if (name, e) in seconds else ""
        for e in PRECISIONS
    ]
    peaks = [f"{statistics.median(memory[name, e]) / 1e6:.0f}" if (name, e) in memory else "–" for e in engines]
    return [variant.title, *times, *ratios, " / ".join(peaks)]


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("artifacts/graphs"), show_default=True)
@click.option("--pipeline", type=click.Choice(["demo", "medium"]), default="demo", show_default=True)
@click.option("--rounds", type=click.IntRange(0), default=5, show_default=True, help="0: only parity, no times.")
@click.option("--only", multiple=True, metavar="NAME", help="Measure only this variant; repeatable. Not reported.")
@click.option("--print", "print_only", is_flag=True, help="Do not write to docs/benchmarks.")
def main(folder: Path, pipeline: str, rounds: int, only: tuple[str, ...], print_only: bool) -> None:
    work = ROOT / "build" / "openvino"
    python = ensure_environment("openvino", work, WORKER.with_name("openvino.txt"))
    version = subprocess.run(
        [str(python), "-c", "import openvino; print(openvino.__version__)"], capture_output=True, text=True, check=True
    ).stdout.strip()
    variants = select_variants([name for name in NAMES if not only or name in only])
    openvino = OpenVino(python, work)
    with progress_bars() as progress:
        artifacts = make_graph_cache(pipeline, folder).build_all(variants, progress)
        artifacts = {variant.name: artifacts[variant.name] for variant in variants}
        parity = render_parity(openvino, artifacts, progress)
        speed = render_speed(openvino, artifacts, rounds, progress) if rounds else ""
    calibration = CALIBRATION[pipeline]
    sections = [
        f"## OpenVINO on the graphs of the {pipeline} pipeline",
        f"OpenVINO {version}. {INTRODUCTION.format(height=SIZE[0], width=SIZE[1], **calibration)}{ROUNDED[pipeline]}",
        parity,
        *([SPEED.format(rounds=rounds, height=SIZE[0], width=SIZE[1]), speed] if rounds else []),
    ]
    body = "\n\n".join(sections)
    if not (only or print_only):
        write_section(f"openvino-{pipeline}", f"make bench-openvino PIPELINE={pipeline}", body)
    click.echo(body)


INTRODUCTION = (
    "Every graph as `edgepress export onnx` wrote it, after calibration with {count} prompts in {steps} steps, opened "
    "without changes and run on the CPU with the inputs of a {height} x {width} image. The root mean square of the "
    "difference from ONNX Runtime's output, relative to that of the output. *exact* computes in f32 with activations "
    "as they are (`DYNAMIC_QUANTIZATION_GROUP_SIZE` 0); *f32* "
    "leaves OpenVINO's default, which with weights in 4 bits rounds activations to 8 bits in groups of 32; *default* "
    "leaves the precision to OpenVINO as well. Held in 4 bits: weights in the compiled model, of all its constants. "
    "ONNX Runtime rounds activations to 8 bits in int4 at accuracy level 4 and in w8a8, each engine in its own way."
)
ROUNDED = {
    "demo": "",
    "medium": " The weights of the medium transformer (125 million) are random, and their codes are rounded only.",
}
SPEED = (
    "One step of the transformer at {height} x {width}, ONNX Runtime and OpenVINO in turns for {rounds} rounds, each "
    "run in a process of its own that takes four steps; the median of the last three counts. Speed-up of OpenVINO over "
    "ONNX Runtime with the same graph in the same round: median and range. Peak memory: ONNX Runtime / f32 / default."
)

if __name__ == "__main__":
    main()
