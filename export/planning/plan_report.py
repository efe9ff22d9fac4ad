"""Renders the plan of a pipeline on a device as Markdown, for the terminal and for the documentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...common.markdown_table import render_table

if TYPE_CHECKING:
    from .device_plan import DevicePlan, GraphEstimate

MB, GIB = 1e6, 2**30
COLUMNS = (
    "phase",
    "graph",
    "runs",
    "weights in memory, MB",
    "activations, MB",
    "10^9 operations a run",
    "floor, s a run",
)
FORMULA = "max(linear operations / their peak rate + other operations / theirs, bytes of weights / bandwidth)"


def render_plan(plan: DevicePlan) -> str:
    """Renders a summary, a table of graphs, the verdict, and the least time of an image."""
    height, width = plan.size
    sizes = ", ".join(f"{name} {nbytes / MB:,.1f} MB" for name, nbytes in plan.component_disk_bytes.items())
    lines = [
        f"{plan.pipeline_class} in {plan.precision} on {plan.device} with {plan.memory_bytes / GIB:.3g} GiB: an image "
        f"of {height}x{width} pixels in {plan.steps} steps, {plan.prompt_tokens} prompt tokens. All numbers are "
        "estimated from configs and headers.",
        "",
        render_table(COLUMNS, [_list_cells(graph) for graph in plan.graphs], numbers=range(2, len(COLUMNS))),
        "",
        f"On disk: {sizes}.",
        f"Memory: {plan.resident_bytes / MB:,.0f} MB with all graphs loaded, {plan.phased_bytes / MB:,.0f} MB with one "
        f"graph at a time, {plan.process_bytes / MB:,.0f} MB of it the process itself. {plan.usable_bytes / MB:,.0f} "
        "MB can be used.",
        _render_floor(plan),
        f"Verdict: {plan.verdict}, {_render_margin(plan)}.",
        *plan.remedies,
    ]
    return "\n".join(lines)


def _render_margin(plan: DevicePlan) -> str:
    if plan.missing_bytes:
        return f"{plan.missing_bytes / MB:,.0f} MB too little"
    return f"margin {plan.margin_bytes / MB:,.0f} MB"


def _list_cells(graph: GraphEstimate) -> list[str]:
    operations = (graph.linear_flops + graph.other_flops) / 1e9
    floor = "–" if graph.floor_seconds is None else f"{graph.floor_seconds:.2g}"
    return [
        graph.phase,
        graph.name,
        str(graph.runs),
        f"{graph.weight_bytes / MB:,.1f}",
        f"{graph.activation_bytes / MB:,.1f}",
        f"{operations:,.1f}" if operations >= 10 else f"{operations:.2g}",
        floor,
    ]


def _render_floor(plan: DevicePlan) -> str:
    if plan.floor_seconds is None:
        return "Time: not estimated. The recipe states no rates of the device (hardware.peak, hardware.bandwidth)."
    return (
        f"Time: an image takes at least {plan.floor_seconds:.3g} s, the sum over all runs of {FORMULA}. Real times are "
        "longer, often several times."
    )
