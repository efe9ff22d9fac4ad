"""Our graphs beside optimum-intel's own INT8 of the same pipeline: a step of the transformer, all engines in turns.

Run by `make bench-openvino`. optimum-intel exports the medium pipeline in an environment of its own under
build/optimum-intel, since it does not go with the release of transformers that edgepress uses.
"""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np

from ...common.markdown_table import render_table
from ...common.progress import Progress, progress_bars
from ...storage.files import read_json_object
from ..common.report import write_section
from ..onnx.graphs.__main__ import GRAPH, SIZE, select_variants
from ..onnx.graphs.runs import format_spread, run_graph
from ..onnx.single_graph import PROMPT_TOKENS, Inputs
from ..peers.environments import ensure_environment
from ..peers.errors import PeerError, find_cause
from .__main__ import OpenVino, capture, make_graph_cache

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("optimum_intel_worker.py")
OPENVINO_PINS = Path(__file__).with_name("openvino.txt")
NAMES = ("w8a8-dynamic", "int4-128-4", "fp32")
PEERS = {"8": "optimum-intel, INT8 weights", "32": "optimum-intel, floats"}
BASE = "8"
PIXELS_PER_LATENT, LATENT_CHANNELS, PATCH = 8, 16, 2
POSITION_AXES = 3


class Subject(NamedTuple):
    """What is measured in every round.

    Attributes:
        title: What the table calls it.
        engine: `onnxruntime` or `openvino`.
        path: The artifact's ONNX folder, or the graph.
        inputs: Inputs of the graph.
    """

    title: str
    engine: str
    path: Path
    inputs: Inputs


def export_peers(pipeline: Path, folder: Path) -> dict[str, Path]:
    """Exports the pipeline with optimum-intel, unless that was done; returns the transformers by bits.

    Raises:
        PeerError: It cannot be installed, or does not export the pipeline.
    """
    work = ROOT / "build" / "optimum-intel"
    python = ensure_environment("optimum-intel", work, WORKER.with_name("optimum_intel.txt"))
    graphs = {}
    for bits in PEERS:
        output, log = folder / f"optimum-intel-{bits}", folder / "optimum-intel.log"
        graphs[bits] = output / GRAPH / "openvino_model.xml"
        if graphs[bits].exists():
            continue
        with log.open("wb") as stream:
            command = [str(python), "-P", str(WORKER), str(pipeline), str(output), bits]
            process = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False)
        if process.returncode:
            raise PeerError(f"optimum-intel does not export the pipeline: {find_cause(log)}")
    return graphs


def make_peer_inputs(size: tuple[int, int], caption_width: int) -> Inputs:
    """Random inputs of optimum-intel's transformer for one image, with the prompt tokens of the other graphs.

    Args:
        size: Height and width in pixels.
        caption_width: Width of the text encoder's states.
    """
    height, width = (side // PIXELS_PER_LATENT for side in size)
    random = np.random.default_rng(0)
    rows, columns = height // PATCH, width // PATCH
    grid = np.stack(np.meshgrid(range(rows), range(columns), indexing="ij"), -1).reshape(-1, 2)
    image = np.concatenate([np.full((len(grid), 1), PROMPT_TOKENS + 1), grid], 1)
    text = np.zeros((PROMPT_TOKENS, POSITION_AXES))
    text[:, 0] = range(1, PROMPT_TOKENS + 1)
    return {
        "hidden_states": random.standard_normal((1, LATENT_CHANNELS, height, width), np.float32),
        "timestep": np.array([0.25], np.float32),
        "encoder_hidden_states": random.standard_normal((1, PROMPT_TOKENS, caption_width), np.float32),
        "encoder_attention_mask": np.zeros((1, PROMPT_TOKENS), np.float32),
        "txt_ids": text[None].astype(np.int32),
        "img_ids": image[None].astype(np.int32),
    }


def measure(
    openvino: OpenVino, subjects: Sequence[Subject], rounds: int, progress: Progress
) -> dict[str, list[tuple[float, float]]]:
    """Runs all subjects in turns; returns seconds and peak memory in bytes by title.

    Raises:
        PeerError: OpenVINO cannot run a graph.
    """
    runs: dict[str, list[tuple[float, float]]] = {}
    schedule = [subject for _ in range(rounds) for subject in subjects]
    for number, subject in enumerate(schedule):
        progress(f"running {GRAPH}", number, len(schedule))
        if subject.engine == "onnxruntime":
            measured = run_graph(subject.path, GRAPH, SIZE, openvino.folder)
            runs.setdefault(subject.title, []).append((measured.seconds, measured.memory))
            continue
        run = openvino.run(subject.path, subject.inputs, "default")
        if isinstance(run, str):
            raise PeerError(f"{subject.title}: {run}")
        runs.setdefault(subject.title, []).append((run.seconds, run.memory))
    progress(f"running {GRAPH}", len(schedule), len(schedule))
    return runs


def render_rows(runs: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """The table: time of a step, speed relative to optimum-intel's INT8 in the same round, and memory."""
    base = [seconds for seconds, _ in runs[PEERS[BASE]]]
    rows = []
    for title, measured in sorted(runs.items(), key=lambda item: statistics.median(run[0] for run in item[1])):
        ratios = [base_seconds / seconds for base_seconds, (seconds, _) in zip(base, measured, strict=True)]
        memory = statistics.median(peak for _, peak in measured)
        median = statistics.median(seconds for seconds, _ in measured)
        rows.append([title, f"{median:.2f}", format_spread(ratios), f"{memory / 1e6:.0f}"])
    return render_table(["graph", "s per step", "speed-up over optimum-intel's INT8", "peak RSS, MB"], rows)


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("artifacts/graphs"), show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--print", "print_only", is_flag=True, help="Do not write to docs/benchmarks.")
def main(folder: Path, rounds: int, print_only: bool) -> None:
    work = ROOT / "build" / "openvino"
    openvino = OpenVino(ensure_environment("openvino", work, OPENVINO_PINS), work)
    cache = make_graph_cache("medium", folder)
    variants = select_variants(NAMES)
    with progress_bars() as progress:
        artifacts = cache.build_all(variants, progress)
        try:
            graphs = export_peers(cache.pipeline, cache.folder)
            inputs = {variant.name: capture(artifacts[variant.name], GRAPH)[0] for variant in variants}
            config = read_json_object(cache.pipeline / GRAPH / "config.json")
            peer_inputs = make_peer_inputs(SIZE, config["cap_feat_dim"])
            subjects = [Subject(title, "openvino", graphs[bits], peer_inputs) for bits, title in PEERS.items()]
            for variant in variants:
                artifact = artifacts[variant.name]
                graph, title = artifact / f"{GRAPH}.onnx", f"edgepress, {variant.title}"
                subjects.append(Subject(f"{title}, in ONNX Runtime", "onnxruntime", artifact, {}))
                subjects.append(Subject(f"{title}, in OpenVINO", "openvino", graph, inputs[variant.name]))
            table = render_rows(measure(openvino, subjects, rounds, progress))
        except PeerError as error:
            table = f"Not measured: {error}."
    introduction = INTRODUCTION.format(rounds=rounds, height=SIZE[0], width=SIZE[1], tokens=PROMPT_TOKENS)
    body = "\n\n".join(["## Beside optimum-intel's INT8", introduction, table])
    if not print_only:
        write_section("openvino-optimum-intel", "make bench-openvino", body)
    click.echo(body)


INTRODUCTION = (
    "One step of the medium transformer (125 million parameters, random weights, rounded codes) for an image of "
    "{height} x {width} pixels and {tokens} prompt tokens, exported by edgepress and by optimum-intel 2.2.0 "
    "(`OVDiffusionPipeline`, `OVWeightQuantizationConfig(bits=8)`). OpenVINO chooses what it computes in. All in turns "
    "for {rounds} rounds, each run in a process of its own that takes four steps; the median of the last three counts. "
    "Ratios are of the same round: median and range. optimum-intel's graph also embeds the prompt in every step, which "
    "edgepress does once for an image."
)

if __name__ == "__main__":
    main()
