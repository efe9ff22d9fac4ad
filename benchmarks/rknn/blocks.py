"""Measures building and simulating full-size blocks for Rockchip's NPUs.

Run by `make bench-rknn`. A transformer of one or three full-width blocks with random weights and small other components
(benchmarks/synthetic/full_size.py) is quantized by rounding. Its blocks are built in every precision and simulated as
the exporter does it, each in its own process. Finished cases are kept, so that an interrupted run can resume.
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

from ...common.markdown_table import render_table
from ...export.graph.source_model import open_source
from ...export.planning.footprint import Footprint, measure_footprint
from ...export.rknn.building.simulation import compare_outputs
from ...export.rknn.planning.partition import BYTES_PER_LIVE_ELEMENT, make_single_part
from ...models.base.npu import load_npu_host_class, load_npu_spec
from ..common.process import measure_command
from ..common.report import write_section

PartRecords = dict[str, list[dict[str, Any]]]  # the records of pipeline.json by graph, one per part
GRAPH = "transformer"
PROMPT_TOKENS = 64
QUANTIZE = {
    "method": "rtn",
    "components": [GRAPH],
    "extra_schemes": {
        # Building takes 11 GB with groups of 32, as in the demo's recipe, and 5 GB with groups of 128.
        "rknn": {"group_size": 128, "symmetric": True, "narrow_range": True},
        "int8": {"bits": 8, "group_size": "channel", "symmetric": True, "narrow_range": True, "activations": "static"},
    },
}
HEADER = [
    "blocks", "tokens", "precision", "build time", "build memory", ".rknn", "NPU working memory (estimated)",
    "simulated error", "rounding error", "verdict",
]  # fmt: skip


@dataclass(frozen=True)
class BlockCase:
    """One export.

    Attributes:
        blocks: Number of blocks.
        image_size: Height and width of the image in pixels.
        target: The processor.
        precision: Precision of the block.
    """

    blocks: int
    image_size: int
    target: str
    precision: str

    @property
    def name(self) -> str:
        """Stem of the case's files."""
        return f"{self.blocks}-{self.image_size}-{self.precision}"

    @property
    def tokens(self) -> int:
        """Number of tokens of image and prompt."""
        return (self.image_size // 16) ** 2 + PROMPT_TOKENS

    def make_recipe(self) -> dict[str, Any]:
        """Returns the recipe of the export."""
        size = [self.image_size, self.image_size]
        rknn = {
            "target": self.target,
            "precision": self.precision,
            "size": size,
            "max_prompt_tokens": PROMPT_TOKENS,
            "samples": 1,
        }
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
    """Returns the records of a case's parts, which are built and simulated if that was not done yet."""
    result = folder / f"{case.name}.json"
    if not result.exists():
        recipe = folder / f"{case.name}.yaml"
        recipe.write_text(yaml.safe_dump(case.make_recipe()), "utf-8")
        model = prepare_pipeline(case.blocks, folder)
        artifact = model if case.precision == "fp16" else prepare_artifact(model, recipe, folder)
        command = ["-m", "edgepress.benchmarks.rknn.block_worker", *map(str, (recipe, model, artifact, GRAPH, result))]
        measure_command([sys.executable, *command], recipe.with_suffix(".log"))
    content: PartRecords = json.loads(result.read_text("utf-8"))
    return content


def prepare_pipeline(blocks: int, folder: Path) -> Path:
    """Writes the random pipeline, if it does not exist yet, and returns its folder."""
    model = folder / f"blocks-{blocks}"
    command = ["-m", "edgepress.benchmarks.synthetic.full_size", "--blocks", str(blocks), "--output", str(model)]
    if not model.exists():
        measure_command([sys.executable, *command], folder / "generate.log")
    return model


def prepare_artifact(model: Path, recipe: Path, folder: Path) -> Path:
    """Quantizes the random pipeline in all schemes, if that was not done yet, and returns the artifact."""
    output = folder / f"quantized-{model.name}"
    if not (output / "model").exists():
        options = ["--recipe", str(recipe), "--model", str(model), "--output", str(output)]
        measure_command([sys.executable, "-m", "edgepress", "quantize", *options], folder / "quantize.log")
    return output


# ---------------------------------------------------------------- the section


def render_section(results: Mapping[BlockCase, PartRecords], folder: Path) -> str:
    """Returns the section of docs/benchmarks/rknn.md."""
    points = [
        point
        for case, records in results.items()
        if case.precision == "fp16"
        for point in collect_cost_points(case, records, folder)
    ]
    footprints = [point.footprint for point in points]
    memory = fit_costs(
        [(1, footprint.parameters, footprint.live_elements) for footprint in footprints],
        [point.peak for point in points],
    )
    seconds = fit_costs(
        [(1, footprint.parameters, footprint.parameters**2) for footprint in footprints],
        [point.seconds for point in points],
    )
    return "\n\n".join(
        [
            "## Blocks of full size on Rockchip's NPUs",
            "A transformer of the true width (181 million parameters per block, random weights, rounded to nearest "
            "where not in fp16), images of 512x512 or 256x256 pixels and 64 prompt tokens, built and simulated by "
            "rknn-toolkit2 as `edgepress export rknn` does it, without the search for layers to keep in float16. "
            "Memory is that of the toolkit's process while building and simulating. Errors are the norm of the "
            "difference relative to the norm of the output. *Simulated* is against the float graph of the same "
            "weights, worst of three steps; *rounding* is between that graph and the one with unrounded weights, first "
            "step.",
            render_table(HEADER, [_render_row(case, records[GRAPH][0], folder) for case, records in results.items()]),
            "Fitted to all fp16 parts by least squares (`export/rknn/planning/partition.py` uses these times and "
            f"slightly more memory): {memory[0] / 1e9:.2f} GB, {memory[1]:.1f} bytes per parameter and "
            f"{memory[2]:.1f} bytes per live activation element; {seconds[0]:.1f} s, {seconds[1] * 1e9:.0f} s per 10^9 "
            f"parameters and {seconds[2] * 1e18:.0f} s per square of 10^9 parameters. Working memory is estimated as "
            f"{BYTES_PER_LIVE_ELEMENT} bytes per live element, half of that in w8a8.",
        ]
    )


def _render_row(case: BlockCase, part: dict[str, Any], folder: Path) -> list[str]:
    footprint = estimate_footprint(case, GRAPH, folder)
    bytes_per_element = BYTES_PER_LIVE_ELEMENT / 2 if case.precision == "w8a8" else BYTES_PER_LIVE_ELEMENT
    estimate = footprint.live_elements * bytes_per_element
    return [
        str(case.blocks),
        str(case.tokens),
        f"{case.precision}, {case.target}",
        f"{part['build']['seconds']:.0f} s",
        f"{part['build']['peak_bytes'] / 1e9:.1f} GB",
        f"{part['bytes'] / 1e6:.0f} MB",
        f"{part['memory']['internal'] / 1e6:.0f} MB ({estimate / 1e6:.0f})",
        f"{part['simulated']['relative_error']:.1e}",
        format_rounding_error(case, folder),
        f"rejected: {part['rejected']}" if part["rejected"] else "published",
    ]


def format_rounding_error(case: BlockCase, folder: Path) -> str:
    """Compares the outputs of the float graphs with rounded and with unrounded weights, for the same inputs."""
    if case.precision == "fp16":
        return "–"
    plain = replace(case, target="rk3588", precision="fp16")
    with np.load(folder / f"{case.name}.npz") as rounded, np.load(folder / f"{plain.name}.npz") as unrounded:
        same_inputs = all(np.array_equal(rounded[port], unrounded[port]) for port in rounded.files if port != "out")
        return f"{compare_outputs(rounded['out'], unrounded['out'])[0]:.1e}" if same_inputs else "inputs differ"


@dataclass(frozen=True)
class CostPoint:
    """The cost of building one part.

    Attributes:
        footprint: Size of the part.
        peak: Peak memory of the toolkit so far, in bytes.
        seconds: Time of building.
    """

    footprint: Footprint
    peak: float
    seconds: float


def collect_cost_points(case: BlockCase, graphs: PartRecords, folder: Path) -> list[CostPoint]:
    """Returns the costs of the parts that raised the toolkit's peak memory; for the others it is not known."""
    points: list[CostPoint] = []
    for name, (part, *_) in graphs.items():
        peak = part["build"]["peak_bytes"]
        if not points or peak > points[-1].peak:
            points.append(CostPoint(estimate_footprint(case, name, folder), peak, part["build"]["seconds"]))
    return points


def estimate_footprint(case: BlockCase, graph: str, folder: Path) -> Footprint:
    """Returns the footprint of a graph, as the memory plan estimates it."""
    model = open_source(folder / f"blocks-{case.blocks}")
    npu = load_npu_spec(model.family)
    npu_graph = npu.graph(graph)
    assert npu_graph is not None
    empty = np.empty((0, 0), np.float16)
    axes = load_npu_host_class(npu)(model.configs, (case.image_size, case.image_size), PROMPT_TOKENS, empty).axis_sizes
    part = make_single_part(npu_graph, npu.stacks.get(graph), model.folder / npu_graph.component)
    return measure_footprint(part, model.folder / npu_graph.component, axes)


def fit_costs(sizes: Sequence[Sequence[float]], costs: Sequence[float]) -> list[float]:
    """Fits the cost per unit of each size by non-negative least squares.

    Args:
        sizes: Sizes of every part, (parts, kinds).
        costs: Cost of every part.
    """
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
