"""What blocks of full size cost to build for Rockchip's NPUs, and what they lose there.

`make bench-rknn`. A transformer of one or three blocks of the true width with random weights (demo/full_size.py), and
little around it, is pressed by rounding alone; then its blocks are built in every precision and simulated as exporting
does it, a process each. Where the benchmark was cut, it goes on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import yaml
from scipy.optimize import nnls

from ...export.graph.source_model import open_source
from ...export.rknn.building.simulation import compare_outputs
from ...export.rknn.planning.footprint import Footprint, measure_footprint
from ...export.rknn.planning.partition import BYTES_PER_LIVE_ELEMENT, make_single_part
from ...models.base.npu import load_npu_host_class, load_npu_spec
from ..common.process import measure_command
from ..common.report import render_table, write_section

PartRecords = dict[str, list[dict[str, Any]]]  # what pipeline.json says of the parts of each
GRAPH = "transformer"
PROMPT_TOKENS = 64  # of a prompt
QUANTIZE = {
    "method": "rtn",
    "components": [GRAPH],
    "also": {
        # Groups of 32, as the demo has them, take 11 GB to build, those of 128 take 5.
        "rknn": {"group_size": 128, "zero_point": False, "narrow": True},
        "int8": {"bits": 8, "group_size": "channel", "zero_point": False, "narrow": True, "activations": "static"},
    },
}
HEADER = [
    "blocks", "tokens", "precision", "to build", "memory", ".rknn", "working memory on the NPU (reckoned)",
    "simulated error", "error of rounding", "verdict",
]  # fmt: skip


@dataclass(frozen=True)
class BlockCase:
    """One export: so many blocks, for pictures of a side in pixels, in a precision of a processor."""

    blocks: int
    side: int
    target: str
    precision: str

    @property
    def name(self) -> str:
        return f"{self.blocks}-{self.side}-{self.precision}"

    @property
    def tokens(self) -> int:
        return (self.side // 16) ** 2 + PROMPT_TOKENS

    def recipe(self) -> dict[str, Any]:
        size = [self.side, self.side]
        rknn = {"target": self.target, "precision": self.precision, "size": size, "tokens": PROMPT_TOKENS, "samples": 1}
        return {
            "device": "npu",
            "quantize": QUANTIZE,
            "calibration": {"count": 1, "size": size, "steps": 2},
            "rknn": rknn | {"memory": 32, "blocks": self.blocks, "build_memory": 16},
        }


CASES = (
    BlockCase(1, 512, "rk3588", "fp16"),
    BlockCase(1, 512, "rk3588", "w8a8"),
    BlockCase(1, 512, "rk3576", "w4a16"),
    BlockCase(1, 256, "rk3588", "fp16"),
    BlockCase(3, 512, "rk3588", "fp16"),
)


def load_or_build(case: BlockCase, folder: Path) -> PartRecords:
    """What pipeline.json would say of the parts, by graph; they are built where that was not done yet."""
    result = folder / f"{case.name}.json"
    if not result.exists():
        recipe = folder / f"{case.name}.yaml"
        recipe.write_text(yaml.safe_dump(case.recipe()), "utf-8")
        model = prepare_pipeline(case.blocks, folder)
        artifact = model if case.precision == "fp16" else prepare_artifact(model, recipe, folder)
        command = ["-m", "edgepress.benchmarks.rknn.block_worker", *map(str, (recipe, model, artifact, GRAPH, result))]
        measure_command([sys.executable, *command], recipe.with_suffix(".log"))
    content: PartRecords = json.loads(result.read_text("utf-8"))
    return content


def prepare_pipeline(blocks: int, folder: Path) -> Path:
    """The random pipeline, written if it is not there yet."""
    model = folder / f"blocks-{blocks}"
    command = ["-m", "edgepress.benchmarks.synthetic.full_size", "--blocks", str(blocks), "--output", str(model)]
    if not model.exists():
        measure_command([sys.executable, *command], folder / "generate.log")
    return model


def prepare_artifact(model: Path, recipe: Path, folder: Path) -> Path:
    """The artifact of the random pipeline in all solutions, made if it is not there yet."""
    output = folder / f"pressed-{model.name}"
    if not (output / "model").exists():
        options = ["--recipe", str(recipe), "--model", str(model), "--output", str(output)]
        measure_command([sys.executable, "-m", "edgepress", "quantize", *options], folder / "quantize.log")
    return output


# ---------------------------------------------------------------- the section


def render_section(results: Mapping[BlockCase, PartRecords], folder: Path) -> str:
    """The body of the section in docs/benchmarks.md."""
    blocks = {case: graphs[GRAPH][0] for case, graphs in results.items()}
    rows = [_row(case, part, folder) for case, part in blocks.items()]
    points = [
        point
        for case, graphs in results.items()
        if case.precision == "fp16"
        for point in collect_cost_points(case, graphs, folder)
    ]
    weights = [point.footprint for point in points]
    peaks = fit_costs([(1, one.parameters, one.live_elements) for one in weights], [point.peak for point in points])
    seconds = fit_costs(
        [(1, one.parameters, one.parameters**2) for one in weights], [point.seconds for point in points]
    )
    parts = [
        "## Blocks of full size on Rockchip's NPUs",
        "A transformer of the true width (181 million parameters a block, random weights, rounded alone where not in "
        "fp16), pictures of 512x512 or 256x256 pixels and 64 tokens of a prompt, built and simulated by rknn-toolkit2 "
        "as `edgepress export rknn` has it done, but for the search for layers to keep in float16. Memory is that of "
        "the toolkit's process, building and simulating. Error: the norm of the difference over that of the output; "
        "*simulated*, from the float graph of the same weights, the worst of three steps; *of rounding*, from that to "
        "the one with unrounded weights, first step.",
        render_table(HEADER, rows),
        "Fitted to all parts in fp16 by least squares (`export/rknn/cut.py` reckons with these seconds and some "
        f"more memory): {peaks[0] / 1e9:.2f} GB, {peaks[1]:.1f} bytes a parameter and {peaks[2]:.1f} bytes a number of "
        f"the activations that are there at once; {seconds[0]:.1f} s, {seconds[1] * 1e9:.0f} s for 10^9 parameters and "
        f"{seconds[2] * 1e18:.0f} s for their square. Working memory: reckoned as {BYTES_PER_LIVE_ELEMENT} bytes a number, in w8a8 half.",
    ]
    return "\n\n".join(parts)


def _row(case: BlockCase, part: dict[str, Any], folder: Path) -> list[str]:
    footprint = estimate_footprint(case, GRAPH, folder)
    reckoned = footprint.live_elements * (
        BYTES_PER_LIVE_ELEMENT / 2 if case.precision == "w8a8" else BYTES_PER_LIVE_ELEMENT
    )
    return [
        str(case.blocks),
        str(case.tokens),
        f"{case.precision}, {case.target}",
        f"{part['build']['seconds']:.0f} s",
        f"{part['build']['peak'] / 1e9:.1f} GB",
        f"{part['bytes'] / 1e6:.0f} MB",
        f"{part['memory']['internal'] / 1e6:.0f} MB ({reckoned / 1e6:.0f})",
        f"{part['simulated']['relative']:.1e}",
        rounding_error(case, folder),
        part["refused"] or "published",
    ]


def rounding_error(case: BlockCase, folder: Path) -> str:
    """How far the float graph of the rounded weights is from that of the unrounded ones, on the same inputs."""
    if case.precision == "fp16":
        return "–"
    plain = replace(case, target="rk3588", precision="fp16")
    with np.load(folder / f"{case.name}.npz") as rounded, np.load(folder / f"{plain.name}.npz") as unrounded:
        same = all(np.array_equal(rounded[port], unrounded[port]) for port in rounded.files if port != "out")
        return f"{compare_outputs(rounded['out'], unrounded['out'])[0]:.1e}" if same else "inputs differ"


@dataclass(frozen=True)
class CostPoint:
    """What a part of some size cost: bytes that the toolkit held so far, seconds of building."""

    footprint: Footprint
    peak: float
    seconds: float


def collect_cost_points(case: BlockCase, graphs: PartRecords, folder: Path) -> list[CostPoint]:
    """Of the parts of an export; only those for which the toolkit took more memory than before tell how much."""
    points: list[CostPoint] = []
    for name, (part, *_) in graphs.items():
        peak = part["build"]["peak"]
        if not points or peak > points[-1].peak:
            points.append(CostPoint(estimate_footprint(case, name, folder), peak, part["build"]["seconds"]))
    return points


def estimate_footprint(case: BlockCase, graph: str, folder: Path) -> Footprint:
    """A graph of a case as the plan weighs it."""
    model = open_source(folder / f"blocks-{case.blocks}")
    npu = load_npu_spec(model.family)
    npu_graph = npu.graph(graph)
    assert npu_graph is not None
    empty = np.empty((0, 0), np.float16)
    axes = load_npu_host_class(npu)(model.configs, (case.side, case.side), PROMPT_TOKENS, empty).axis_sizes
    part = make_single_part(npu_graph, npu.stacks.get(graph), model.folder / npu_graph.component)
    return measure_footprint(part, model.folder / npu_graph.component, axes)


def fit_costs(sizes: Sequence[Sequence[float]], costs: Sequence[float]) -> list[float]:
    """What each kind of size costs, by least squares; none is below 0."""
    columns = np.array(sizes, float)
    scale = columns.max(axis=0)
    solution, _ = nnls(columns / scale, np.array(costs, float))
    return list(solution / scale)


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("artifacts/npu"), show_default=True)
def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    results = {case: load_or_build(case, folder) for case in CASES}
    body = render_section(results, folder)
    write_section("npu", "make bench-rknn", body)
    click.echo(body)


if __name__ == "__main__":
    main()
