"""A plan as text: Markdown tables, for a terminal and for the docs."""

from __future__ import annotations

from collections.abc import Sequence

from .plan import Plan, Planned, Way

MIB, GIB = 2**20, 2**30


def told(plan: Plan) -> str:
    """All that a plan says."""
    high, wide = plan.size
    head = (
        f"{plan.target} with {plan.memory / GIB:.3g} GiB; pictures of {high}x{wide} pixels, prompts of up to "
        f"{plan.tokens} tokens."
    )
    return "\n\n".join([head, _ways(plan.ways), *(_parts(way) for way in plan.ways if way.domains)])


def _ways(ways: Sequence[Way]) -> str:
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
    return _table(header, [_way(way) for way in ways])


def _way(way: Way) -> list[str]:
    if not way.parts:
        return [way.name, *["–"] * 6, way.verdict]
    building = f"{way.seconds / 60:.0f} min" if way.domains else "none"
    memory = [f"{each / GIB:.2f} GiB" for each in (way.weights, way.internal, way.host, way.peak)]
    return [way.name, str(len(way.parts)), *memory, building, way.verdict]


def _parts(way: Way) -> str:
    header = ["graph", "parts", "parameters", "on the device, MiB each", "working memory", "domain", "to build, each"]
    graphs = dict.fromkeys(part.graph for part in way.parts)
    rows = [_graph(graph, [part for part in way.parts if part.graph == graph], way) for graph in graphs]
    return f"{way.name}:\n\n" + _table(header, rows)


def _graph(name: str, parts: Sequence[Planned], way: Way) -> list[str]:
    millions = f"{sum(part.parameters for part in parts) / 1e6:.0f} M"
    device = _range([part.weights / MIB for part in parts])
    internal = f"{_range([part.internal / MIB for part in parts])} MiB"
    if parts[0].on_cpu:
        return [name, "CPU, int4", millions, device, internal, "–", "–"]
    here = {part.name for part in parts}
    domains = [str(number) for number, domain in enumerate(way.domains, 1) if here & set(domain)]
    build = f"{max(part.build for part in parts) / GIB:.1f} GiB, {max(part.seconds for part in parts):.0f} s"
    return [name, str(len(parts)), millions, device, internal, ", ".join(domains), build]


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low}–{high}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
