"""allocation.md and its plot, in the folder of a model with mixed precision: why each layer got its format."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from ...common.markdown_table import render_table
from ...storage.manifest import AllocationRecord, LayerAllocation
from .options import OPTIONS

PAGE, PLOT = "allocation.md", "allocation.svg"
# The Okabe-Ito colours, which people with colour vision deficiency can tell apart on light and on dark ground.
COLOURS = dict(zip(OPTIONS, ("#999999", "#56b4e9", "#0072b2", "#e69f00", "#d55e00"), strict=True))
BAR, GAP, PLOT_HEIGHT, LEFT, TOP, BOTTOM, LEGEND_STEP = 8, 2, 240, 56, 36, 28, 80


def write_allocation_page(record: AllocationRecord, folder: Path) -> None:
    """Writes the page and the plot.

    Args:
        record: How the bytes were distributed.
        folder: The folder of the quantized pipeline.
    """
    (folder / PAGE).write_text(_render_page(record), "utf-8")
    (folder / PLOT).write_text(_render_plot(record.layers), "utf-8")


def _render_page(record: AllocationRecord) -> str:
    weights = sum(layer.weights for layer in record.layers)
    drifts = [[name, f"{drift:.2f} dB"] for name, drift in record.drift.items()]
    parts = [
        "# Mixed precision",
        f"The quantized linears take {record.size:,} bytes, which is {8 * record.size / weights:.3f} bits a weight; "
        f"the budget leaves them {record.limit:,}. To first order, their errors together change the outputs of the "
        f"denoisers by {record.expected_drift:.2f} dB of these (estimated from gradients of {record.images} images).",
    ]
    if drifts:
        parts += [
            "Measured on calibration prompts that nothing was solved on, beside one format for all layers:",
            render_table(["distribution", "drift"], drifts, numbers=[1]),
        ]
    parts += [
        "Each bar is a layer, in the order in which they run: what it would cost in groups of 128, on a logarithmic "
        "scale. Its colour is the format that it got.",
        f"![What layers cost, and their formats]({PLOT})",
        render_table(
            ["layer", "weights", "format", "bits a weight", "drift", *(f"in {option}" for option in OPTIONS)],
            [_describe_layer(layer) for layer in record.layers],
            numbers=range(1, 5 + len(OPTIONS)),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _describe_layer(layer: LayerAllocation) -> list[str]:
    bits = 8 * layer.size / layer.weights
    drifts = [layer.drifts.get(option) for option in (layer.format, *OPTIONS)]
    cells = ["" if drift is None else f"{drift:.2e}" for drift in drifts]
    return [f"`{layer.layer}`", f"{layer.weights:,}", layer.format, f"{bits:.3f}", *cells]


def _render_plot(layers: Sequence[LayerAllocation]) -> str:
    heights = [math.log10(_largest_drift(layer)) if _largest_drift(layer) else None for layer in layers]
    finite = [height for height in heights if height is not None] or [0.0]
    low, high = math.floor(min(finite)), math.ceil(max(finite)) or 1
    high = max(high, low + 1)
    width = max(LEFT + len(layers) * (BAR + GAP) + GAP, LEFT + len(OPTIONS) * LEGEND_STEP)
    total = TOP + PLOT_HEIGHT + BOTTOM
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{total}" viewBox="0 0 {width} {total}" '
        'font-family="sans-serif" font-size="12">',
        "<title>What each layer would cost in groups of 128, and the format that it got</title>",
        *_render_legend(),
        *_render_axis(low, high, width),
    ]
    for number, (layer, height) in enumerate(zip(layers, heights, strict=True)):
        size = 1 + (PLOT_HEIGHT - 1) * ((height if height is not None else low) - low) / (high - low)
        x, y = LEFT + GAP + number * (BAR + GAP), TOP + PLOT_HEIGHT - size
        lines.append(
            f'<rect x="{x}" y="{y:.1f}" width="{BAR}" height="{size:.1f}" fill="{COLOURS[layer.format]}">'
            f"<title>{escape(layer.layer)}: {layer.format}, {_largest_drift(layer):.1e}</title></rect>"
        )
    return "\n".join([*lines, "</svg>"]) + "\n"


def _largest_drift(layer: LayerAllocation) -> float:
    return max(layer.drifts.values())


def _render_legend() -> Iterator[str]:
    for number, (option, colour) in enumerate(COLOURS.items()):
        x = LEFT + number * LEGEND_STEP
        yield f'<rect x="{x}" y="10" width="12" height="12" fill="{colour}"/>'
        yield f'<text x="{x + 18}" y="20" fill="#808080">{option}</text>'


def _render_axis(low: int, high: int, width: int) -> Iterator[str]:
    for power in range(low, high + 1):
        y = TOP + PLOT_HEIGHT * (high - power) / (high - low)
        yield f'<line x1="{LEFT}" x2="{width}" y1="{y:.1f}" y2="{y:.1f}" stroke="#808080" stroke-opacity="0.3"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" fill="#808080">1e{power}</text>'
