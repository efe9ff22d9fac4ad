"""Renders a memory plan as Markdown, for the terminal and for the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ....common.markdown_table import render_table

if TYPE_CHECKING:
    from .memory_plan import Deployment, MemoryPlan, PartEstimate

MIB, GIB = 2**20, 2**30


def render_plan(plan: MemoryPlan) -> str:
    """Renders a summary, a table of all deployments, and a table of the graphs of each one on the NPU."""
    height, width = plan.image_size
    summary = (
        f"{plan.target} with {plan.board_bytes / GIB:.3g} GiB; images of {height}x{width} pixels, prompts of up to "
        f"{plan.max_prompt_tokens} tokens."
    )
    graphs = [_render_graphs(deployment) for deployment in plan.deployments if deployment.domains]
    return "\n\n".join([summary, _render_deployments(plan.deployments), *graphs])


def _render_deployments(deployments: Sequence[Deployment]) -> str:
    header = [
        "deployment",
        "parts",
        "weights",
        "working memory",
        "host",
        "total, with 1 GiB for the system",
        "build time",
        "verdict",
    ]
    return render_table(header, [_make_deployment_row(deployment) for deployment in deployments])


def _make_deployment_row(deployment: Deployment) -> list[str]:
    if not deployment.parts:
        return [deployment.name, *["–"] * 6, deployment.verdict]
    sizes = (deployment.weight_bytes, deployment.internal_bytes, deployment.host_bytes, deployment.peak_bytes)
    memory = [f"{size / GIB:.2f} GiB" for size in sizes]
    build_time = f"{deployment.build_seconds / 60:.0f} min" if deployment.domains else "none"
    return [deployment.name, str(len(deployment.parts)), *memory, build_time, deployment.verdict]


def _render_graphs(deployment: Deployment) -> str:
    header = [
        "graph",
        "parts",
        "parameters",
        "on the device, MiB each",
        "working memory",
        "domain",
        "to build, each",
    ]
    graphs = dict.fromkeys(part.graph for part in deployment.parts)
    rows = [
        _make_graph_row(graph, [part for part in deployment.parts if part.graph == graph], deployment)
        for graph in graphs
    ]
    return f"{deployment.name}:\n\n" + render_table(header, rows)


def _make_graph_row(graph: str, parts: Sequence[PartEstimate], deployment: Deployment) -> list[str]:
    parameters = f"{sum(part.parameters for part in parts) / 1e6:.0f} M"
    weights = _format_range([part.weight_bytes / MIB for part in parts])
    internal = f"{_format_range([part.internal_bytes / MIB for part in parts])} MiB"
    if parts[0].on_cpu:
        return [graph, "CPU, int4", parameters, weights, internal, "–", "–"]
    names = {part.name for part in parts}
    domains = [str(number) for number, domain in enumerate(deployment.domains, 1) if names & set(domain)]
    build_bytes, build_seconds = (max(part.build_bytes for part in parts), max(part.build_seconds for part in parts))
    build = f"{build_bytes / GIB:.1f} GiB, {build_seconds:.0f} s"
    return [graph, str(len(parts)), parameters, weights, internal, ", ".join(domains), build]


def _format_range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low}–{high}"
