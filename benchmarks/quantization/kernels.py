"""Measures where PyTorch's int4 kernel is faster than dequantizing, and how both compare with a dense product.

Run by `make bench-kernels`. The products in a row of the table are interleaved, so that a busy machine slows them all
equally. With one thread, CPU time is measured instead of wall time.
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

from ...common.markdown_table import render_table
from ...numerics.awq_packing import AwqTensors
from ...numerics.int4_matmul import CPU_MAX_ROWS, dequant_matmul, dequantize_awq, int4_matmul_cpu
from ..common.report import write_section

SHAPES = ((384, 384), (1024, 384), (3840, 3840), (10240, 3840), (3840, 10240))  # (out, in)
ROWS = (1, 16, 64, 256, 1024)
GROUP_SIZE = 128
MAX_SCALAR_MULTIPLICATIONS = 2e10  # with more, the scalar float32 kernel takes minutes


class Timing(NamedTuple):
    """Median times of one product in milliseconds.

    Attributes:
        shape: The weight's (out, in).
        rows: Rows of the input.
        dense: With a dense weight.
        dequantized: With an int4 weight that is dequantized first.
        int4: With the int4 kernel; None if that would take minutes.
    """

    shape: tuple[int, int]
    rows: int
    dense: float
    dequantized: float
    int4: float | None


def make_random_weight(out: int, inner: int) -> AwqTensors:
    """Returns a packed weight (out, inner) with random codes."""
    generator = torch.Generator().manual_seed(out + inner)
    codes = torch.randint(-(2**31), 2**31, (inner, out // 8), generator=generator).to(torch.int32)
    scales = torch.rand(inner // GROUP_SIZE, out, generator=generator).to(torch.float16) / inner**0.5
    return AwqTensors(codes, codes[: inner // GROUP_SIZE].clone(), scales)


def read_clock() -> float:
    """Returns the CPU time of this thread in seconds, or wall time if torch uses several threads."""
    return time.thread_time() if torch.get_num_threads() == 1 else time.perf_counter()


def interleave(runs: list[Callable[[], object]], repeats: int) -> list[float]:
    """Runs functions in turn, `repeats` times after a warm-up; returns the median milliseconds of each."""
    seconds: list[list[float]] = [[] for _ in runs]
    for number in range(repeats + 1):
        for run, values in zip(runs, seconds, strict=True):
            started = read_clock()
            run()
            if number:
                values.append(read_clock() - started)
    return [1000 * statistics.median(values) for values in seconds]


def time_products(shape: tuple[int, int], dtype: torch.dtype, repeats: int) -> Iterator[Timing]:
    """Yields the timings of one weight, by increasing number of rows."""
    packed = make_random_weight(*shape)
    dense = dequantize_awq(packed, dtype).contiguous()
    for rows in ROWS:
        x = torch.randn(rows, shape[1], generator=torch.Generator().manual_seed(rows)).to(dtype)
        yield Timing(shape, rows, *_time_product(x, dense, packed, repeats))


def _time_product(x: Tensor, dense: Tensor, packed: AwqTensors, repeats: int) -> tuple[float, float, float | None]:
    runs: list[Callable[[], object]] = [lambda: F.linear(x, dense), lambda: dequant_matmul(x, packed)]
    if x.dtype == torch.bfloat16 or x.shape[0] * dense.numel() * 30 < MAX_SCALAR_MULTIPLICATIONS:
        runs.append(lambda: int4_matmul_cpu(x, packed))
    times = interleave(runs, repeats)
    return times[0], times[1], times[2] if len(times) == 3 else None


def find_crossover(timings: list[Timing]) -> float | None:
    """Returns the number of rows at which both cost the same, interpolated linearly; None if there is no such point."""
    points = [(timing.rows, timing.int4 - timing.dequantized) for timing in timings if timing.int4 is not None]
    for (rows, difference), (next_rows, next_difference) in itertools.pairwise(points):
        if difference <= 0 < next_difference:
            return rows + (next_rows - rows) * difference / (difference - next_difference)
    return None


def render_row(timing: Timing) -> list[str]:
    """Returns a row of the table, with times relative to the dense product."""
    out, inner = timing.shape
    ratios = ["" if value is None else f"{value / timing.dense:.2f}" for value in (timing.int4, timing.dequantized)]
    return [f"{out} x {inner}", str(timing.rows), f"{timing.dense:.2f}", *ratios]


def render_dtype_section(dtype: torch.dtype, timings: list[Timing]) -> str:
    """Returns the table of one dtype, followed by the break-even points."""
    header = ["out x in", "rows", "dense, ms", "int4 kernel, x dense", "dequantize and multiply, x dense"]
    crossovers = {shape: find_crossover([t for t in timings if t.shape == shape]) for shape in SHAPES}
    crossover_text = ", ".join(
        f"{out} x {inner}: {rows:.0f}" for (out, inner), rows in crossovers.items() if rows is not None
    )
    closing = f"Break-even, in rows: {crossover_text or 'none of those measured'}."
    return "\n\n".join(
        [f"### {str(dtype).removeprefix('torch.')}", render_table(header, [render_row(t) for t in timings]), closing]
    )


@click.command(help=__doc__)
@click.option("--threads", default=1, show_default=True, help="Threads per product.")
@click.option("--repeats", default=9, show_default=True, help="Runs of each product.")
@click.option("--print", "print_only", is_flag=True, help="Do not write to docs/benchmarks.")
def main(threads: int, repeats: int, print_only: bool) -> None:
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    parts = [
        "## The int4 kernel against dequantization",
        f"Weights in 4 bits, groups of {GROUP_SIZE}; {threads} thread(s), medians of {repeats} interleaved runs. "
        f"The loader uses the int4 kernel in bfloat16 for up to {CPU_MAX_ROWS} rows and dequantizes otherwise.",
    ]
    for dtype in (torch.bfloat16, torch.float32):
        timings = [timing for shape in SHAPES for timing in time_products(shape, dtype, repeats)]
        parts.append(render_dtype_section(dtype, timings))
    body = "\n\n".join(parts)
    if not print_only:
        write_section("kernels", "make bench-kernels", body)
    click.echo(body)


if __name__ == "__main__":
    main()
