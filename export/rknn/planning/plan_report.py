"""A plan as text: Markdown tables, for a terminal and for the docs."""

from __future__ import annotations

from collections.abc import Sequence

from .memory_plan import Deployment, MemoryPlan, PartEstimate

MIB, GIB = 2**20, 2**30


def render_plan(plan: MemoryPlan) -> str:
    """All that a plan says."""
    high, wide = plan.image_size
    head = (
        f"{plan.target} with {plan.board_bytes / GIB:.3g} GiB; pictures of {high}x{wide} pixels, prompts of up to "
        f"{plan.max_prompt_tokens} tokens."
    )
    return "\n\n".join(
        [head, _render_deployments(plan.deployments), *(_render_parts(way) for way in plan.deployments if way.domains)]
    )


def _render_deployments(ways: Sequence[Deployment]) -> str:
    header = [
        "way",
        "parts",
        "weights",
        "working memory",
        "host",
        "all, with 1 GiB for the system",
        "building",
        "verdict",
    ]
    return _format_table(header, [_make_deployment_row(way) for way in ways])


def _make_deployment_row(way: Deployment) -> list[str]:
    if not way.parts:
        return [way.name, *["–"] * 6, way.verdict]
    building = f"{way.build_seconds / 60:.0f} min" if way.domains else "none"
    memory = [
        f"{each / GIB:.2f} GiB" for each in (way.weight_bytes, way.internal_bytes, way.host_bytes, way.peak_bytes)
    ]
    return [way.name, str(len(way.parts)), *memory, building, way.verdict]


def _render_parts(way: Deployment) -> str:
    header = ["graph", "parts", "parameters", "on the device, MiB each", "working memory", "domain", "to build, each"]
    graphs = dict.fromkeys(part.graph for part in way.parts)
    rows = [_make_graph_row(graph, [part for part in way.parts if part.graph == graph], way) for graph in graphs]
    return f"{way.name}:\n\n" + _format_table(header, rows)


def _make_graph_row(name: str, parts: Sequence[PartEstimate], way: Deployment) -> list[str]:
    millions = f"{sum(part.parameters for part in parts) / 1e6:.0f} M"
    device = _format_range([part.weight_bytes / MIB for part in parts])
    internal = f"{_format_range([part.internal_bytes / MIB for part in parts])} MiB"
    if parts[0].on_cpu:
        return [name, "CPU, int4", millions, device, internal, "–", "–"]
    here = {part.name for part in parts}
    domains = [str(number) for number, domain in enumerate(way.domains, 1) if here & set(domain)]
    build = (
        f"{max(part.build_bytes for part in parts) / GIB:.1f} GiB, {max(part.build_seconds for part in parts):.0f} s"
    )
    return [name, str(len(parts)), millions, device, internal, ", ".join(domains), build]


def _format_range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low}–{high}"


def _format_table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
