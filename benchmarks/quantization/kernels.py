"""Where PyTorch's int4 kernel is faster than dequantization, and what both cost beside a dense product.

`make bench-kernels`. Each row of the table is measured in turns, so that a busy machine slows all of it alike; with one
thread, times are of the thread and not of the clock.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import click
import torch
import torch.nn.functional as F
from torch import Tensor

from ...numerics import int4_matmul
from ...numerics.awq_packing import AwqTensors
from ..common.report import render_table, write_section

SHAPES = ((384, 384), (1024, 384), (3840, 3840), (10240, 3840), (3840, 10240))  # (out, in)
ROWS = (1, 16, 64, 256, 1024)
GROUP_SIZE = 128
MAX_SCALAR_MULTIPLICATIONS = 2e10  # multiplications beyond which the scalar kernel of float32 takes minutes


class Timing(NamedTuple):
    """Median milliseconds of one product; `int4` is missing where it would take minutes."""

    shape: tuple[int, int]
    rows: int
    dense: float
    dequant_matmul: float
    int4_matmul: float | None


def make_random_weight(out: int, inner: int) -> AwqTensors:
    """A packed weight with random codes."""
    generator = torch.Generator().manual_seed(out + inner)
    codes = torch.randint(-(2**31), 2**31, (inner, out // 8), generator=generator).to(torch.int32)
    scales = torch.rand(inner // GROUP_SIZE, out, generator=generator).to(torch.float16) / inner**0.5
    return AwqTensors(codes, codes[: inner // GROUP_SIZE].clone(), scales)


def read_clock() -> float:
    """Seconds of this thread, or of the wall where others work for it."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def interleave(runs: list[Callable[[], object]], repeats: int) -> list[float]:
    """Median milliseconds of each, after one run that is not counted."""
    seconds: list[list[float]] = [[] for _ in runs]
    for number in range(repeats + 1):
        for run, values in zip(runs, seconds, strict=True):
            started = read_clock()
            run()
            if number:
                values.append(read_clock() - started)
    return [1000 * statistics.median(values) for values in seconds]


def time_products(shape: tuple[int, int], dtype: torch.dtype, repeats: int) -> Iterator[Timing]:
    """The timings of one weight, few rows first."""
    packed = make_random_weight(*shape)
    dense = int4_matmul.dequantize_awq(packed, dtype).contiguous()
    for rows in ROWS:
        x = torch.randn(rows, shape[1], generator=torch.Generator().manual_seed(rows)).to(dtype)
        yield Timing(shape, rows, *_time_product(x, dense, packed, repeats))


def _time_product(x: Tensor, dense: Tensor, packed: AwqTensors, repeats: int) -> tuple[float, float, float | None]:
    runs: list[Callable[[], object]] = [lambda: F.linear(x, dense), lambda: int4_matmul.dequant_matmul(x, packed)]
    if x.dtype == torch.bfloat16 or x.shape[0] * dense.numel() * 30 < MAX_SCALAR_MULTIPLICATIONS:
        runs.append(lambda: int4_matmul.int4_matmul_cpu(x, packed))
    times = interleave(runs, repeats)
    return times[0], times[1], times[2] if len(times) == 3 else None


def find_crossover(timings: list[Timing]) -> float | None:
    """The rows at which both cost the same, on a straight line between those measured; None: nowhere in between."""
    points = [
        (timing.rows, timing.int4_matmul - timing.dequant_matmul)
        for timing in timings
        if timing.int4_matmul is not None
    ]
    for (rows, gain), (next_rows, loss) in itertools.pairwise(points):
        if gain <= 0 < loss:
            return rows + (next_rows - rows) * gain / (gain - loss)
    return None


def render_row(timing: Timing) -> list[str]:
    """A row of the table; both ways as multiples of the dense product."""
    out, inner = timing.shape
    ratios = [
        "" if value is None else f"{value / timing.dense:.2f}" for value in (timing.int4_matmul, timing.dequant_matmul)
    ]
    return [f"{out} x {inner}", str(timing.rows), f"{timing.dense:.2f}", *ratios]


def render_dtype_section(dtype: torch.dtype, timings: list[Timing]) -> str:
    """The table of one dtype, and below it where the two ways cross."""
    header = ["out x in", "rows", "dense, ms", "int4 kernel, x dense", "dequantize and multiply, x dense"]
    crossovers = {shape: find_crossover([t for t in timings if t.shape == shape]) for shape in SHAPES}
    crossover_text = ", ".join(
        f"{out} x {inner}: {rows:.0f}" for (out, inner), rows in crossovers.items() if rows is not None
    )
    closing = f"Both cost the same at these rows: {crossover_text or 'none of those measured'}."
    return "\n\n".join(
        [f"### {str(dtype).removeprefix('torch.')}", render_table(header, [render_row(t) for t in timings]), closing]
    )


@click.command(help=__doc__)
@click.option("--threads", default=1, show_default=True, help="Threads of a product.")
@click.option("--repeats", default=9, show_default=True, help="Runs of each product.")
@click.option("--print", "only_print", is_flag=True, help="Write nothing into docs/benchmarks.md.")
def main(threads: int, repeats: int, only_print: bool) -> None:
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    parts = [
        "## The int4 kernel against dequantization",
        f"Weights in 4 bits, groups of {GROUP_SIZE}; {threads} thread(s), medians of {repeats} runs in turns. "
        f"The loader takes the int4 kernel in bfloat16 up to {int4_matmul.CPU_MAX_ROWS} rows, and dequantizes otherwise.",
    ]
    for dtype in (torch.bfloat16, torch.float32):
        timings = [timing for shape in SHAPES for timing in time_products(shape, dtype, repeats)]
        parts.append(render_dtype_section(dtype, timings))
    body = "\n\n".join(parts)
    if not only_print:
        write_section("kernels", "make bench-kernels", body)
    click.echo(body)


if __name__ == "__main__":
    main()
