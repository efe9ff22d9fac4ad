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

from ..export.onnx.model import find
from ..export.rknn.cut import LIVE, whole
from ..export.rknn.measure import compare
from ..export.rknn.weigh import Weighed, weigh
from ..models.npu import npu_host_class, npu_of
from .process import measured
from .report import table, write_section

Graphs = dict[str, list[dict[str, Any]]]  # what pipeline.json says of the parts of each
GRAPH = "transformer"
TOKENS = 64  # of a prompt
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
class Case:
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
        return (self.side // 16) ** 2 + TOKENS

    def recipe(self) -> dict[str, Any]:
        size = [self.side, self.side]
        rknn = {"target": self.target, "precision": self.precision, "size": size, "tokens": TOKENS, "samples": 1}
        return {
            "device": "npu",
            "quantize": QUANTIZE,
            "calibration": {"count": 1, "size": size, "steps": 2},
            "rknn": rknn | {"memory": 32, "blocks": self.blocks, "build_memory": 16},
        }


CASES = (
    Case(1, 512, "rk3588", "fp16"),
    Case(1, 512, "rk3588", "w8a8"),
    Case(1, 512, "rk3576", "w4a16"),
    Case(1, 256, "rk3588", "fp16"),
    Case(3, 512, "rk3588", "fp16"),
)


def built(case: Case, folder: Path) -> Graphs:
    """What pipeline.json would say of the parts, by graph; they are built where that was not done yet."""
    result = folder / f"{case.name}.json"
    if not result.exists():
        recipe = folder / f"{case.name}.yaml"
        recipe.write_text(yaml.safe_dump(case.recipe()), "utf-8")
        model = write_pipeline(case.blocks, folder)
        artifact = model if case.precision == "fp16" else pressed(model, recipe, folder)
        words = ["-m", "edgepress.benchmarks.npu_block", *map(str, (recipe, model, artifact, GRAPH, result))]
        measured([sys.executable, *words], recipe.with_suffix(".log"))
    content: Graphs = json.loads(result.read_text("utf-8"))
    return content


def write_pipeline(blocks: int, folder: Path) -> Path:
    """The random pipeline, written if it is not there yet."""
    model = folder / f"blocks-{blocks}"
    words = ["-m", "edgepress.demo.full_size", "--blocks", str(blocks), "--output", str(model)]
    if not model.exists():
        measured([sys.executable, *words], folder / "generate.log")
    return model


def pressed(model: Path, recipe: Path, folder: Path) -> Path:
    """The artifact of the random pipeline in all solutions, made if it is not there yet."""
    output = folder / f"pressed-{model.name}"
    if not (output / "model").exists():
        options = ["--recipe", str(recipe), "--model", str(model), "--output", str(output)]
        measured([sys.executable, "-m", "edgepress.cli", "quantize", *options], folder / "quantize.log")
    return output


# ---------------------------------------------------------------- the section


def section(found: Mapping[Case, Graphs], folder: Path) -> str:
    """The body of the section in docs/benchmarks.md."""
    blocks = {case: graphs[GRAPH][0] for case, graphs in found.items()}
    rows = [_row(case, part, folder) for case, part in blocks.items()]
    points = [
        point for case, graphs in found.items() if case.precision == "fp16" for point in costs(case, graphs, folder)
    ]
    weights = [point.weighed for point in points]
    peaks = fitted([(1, one.parameters, one.live) for one in weights], [point.peak for point in points])
    seconds = fitted([(1, one.parameters, one.parameters**2) for one in weights], [point.seconds for point in points])
    parts = [
        "## Blocks of full size on Rockchip's NPUs",
        "A transformer of the true width (181 million parameters a block, random weights, rounded alone where not in "
        "fp16), pictures of 512x512 or 256x256 pixels and 64 tokens of a prompt, built and simulated by rknn-toolkit2 "
        "as `edgepress export rknn` has it done, but for the search for layers to keep in float16. Memory is that of "
        "the toolkit's process, building and simulating. Error: the norm of the difference over that of the output; "
        "*simulated*, from the float graph of the same weights, the worst of three steps; *of rounding*, from that to "
        "the one with unrounded weights, first step.",
        table(HEADER, rows),
        "Fitted to all parts in fp16 by least squares (`export/rknn/cut.py` reckons with these seconds and some "
        f"more memory): {peaks[0] / 1e9:.2f} GB, {peaks[1]:.1f} bytes a parameter and {peaks[2]:.1f} bytes a number of "
        f"the activations that are there at once; {seconds[0]:.1f} s, {seconds[1] * 1e9:.0f} s for 10^9 parameters and "
        f"{seconds[2] * 1e18:.0f} s for their square. Working memory: reckoned as {LIVE} bytes a number, in w8a8 half.",
    ]
    return "\n\n".join(parts)


def _row(case: Case, part: dict[str, Any], folder: Path) -> list[str]:
    found = weighed(case, GRAPH, folder)
    reckoned = found.live * (LIVE / 2 if case.precision == "w8a8" else LIVE)
    return [
        str(case.blocks),
        str(case.tokens),
        f"{case.precision}, {case.target}",
        f"{part['build']['seconds']:.0f} s",
        f"{part['build']['peak'] / 1e9:.1f} GB",
        f"{part['bytes'] / 1e6:.0f} MB",
        f"{part['memory']['internal'] / 1e6:.0f} MB ({reckoned / 1e6:.0f})",
        f"{part['simulated']['relative']:.1e}",
        own_error(case, folder),
        part["refused"] or "published",
    ]


def own_error(case: Case, folder: Path) -> str:
    """How far the float graph of the rounded weights is from that of the unrounded ones, on the same inputs."""
    if case.precision == "fp16":
        return "–"
    plain = replace(case, target="rk3588", precision="fp16")
    with np.load(folder / f"{case.name}.npz") as one, np.load(folder / f"{plain.name}.npz") as other:
        same = all(np.array_equal(one[port], other[port]) for port in one.files if port != "out")
        return f"{compare(one['out'], other['out'])[0]:.1e}" if same else "inputs differ"


@dataclass(frozen=True)
class Point:
    """What a part of some size cost: bytes that the toolkit held so far, seconds of building."""

    weighed: Weighed
    peak: float
    seconds: float


def costs(case: Case, graphs: Graphs, folder: Path) -> list[Point]:
    """Of the parts of an export; only those for which the toolkit took more memory than before tell how much."""
    found: list[Point] = []
    for name, (part, *_) in graphs.items():
        peak = part["build"]["peak"]
        if not found or peak > found[-1].peak:
            found.append(Point(weighed(case, name, folder), peak, part["build"]["seconds"]))
    return found


def weighed(case: Case, graph: str, folder: Path) -> Weighed:
    """A graph of a case as the plan weighs it."""
    model = find(folder / f"blocks-{case.blocks}")
    npu = npu_of(model.family)
    found = npu.graph(graph)
    assert found is not None
    nothing = np.empty((0, 0), np.float16)
    axes = npu_host_class(npu)(model.configs(), (case.side, case.side), TOKENS, nothing).sizes
    part = whole(found, npu.stacks.get(graph), model.folder / found.component)
    return weigh(part, model.folder / found.component, axes)


def fitted(sizes: Sequence[Sequence[float]], costs: Sequence[float]) -> list[float]:
    """What each kind of size costs, by least squares; none is below 0."""
    columns = np.array(sizes, float)
    scale = columns.max(axis=0)
    found, _ = nnls(columns / scale, np.array(costs, float))
    return list(found / scale)


@click.command(help=__doc__)
@click.option("--folder", type=click.Path(path_type=Path), default=Path("artifacts/npu"), show_default=True)
def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    found = {case: built(case, folder) for case in CASES}
    body = section(found, folder)
    write_section("npu", "make bench-rknn", body)
    click.echo(body)


if __name__ == "__main__":
    main()
