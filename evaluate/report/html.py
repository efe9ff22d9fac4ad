"""The page: one file that needs nothing else, neither the network nor the pictures that it was made from."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..results.schema import Results, ScoreChange
from . import charts, formatting, heatmap
from . import gallery as cases
from .cards import ScoreCard, build_cards, is_worse_than_overall
from .formatting import MIN_GROUP_SIZE
from .thumbnails import MAX_BYTES, Thumbnails

Part = TypeVar("Part", charts.Trend, ScoreChange)
ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("data.js", "gallery.js", "viewer.js")  # one after the other, as one module


def render(results: Results, folder: Path, max_bytes: int = MAX_BYTES) -> str:
    """The page as it is to stand in `folder`, with at most so many bytes of pictures."""
    drawn = heatmap.select_heatmap(_pixels(results))
    gallery = cases.build_gallery(results, folder, drawn, Thumbnails(max_bytes))
    template = _environment(results).get_template("report.html")
    made = build_cards(results)
    return template.render(
        results=results,
        data=_embedded(gallery.data),
        gallery=gallery,
        cards=made,
        first_sort=_first_sort(results, made),
        trends=_in_order(charts.build_trends(results.history or ()), results),
        changes=_in_order(results.baseline.changes if results.baseline else (), results),
        gradient=heatmap.sample_colormap(),
        heat=drawn,
    )


def _pixels(results: Results) -> int:
    """How many pixels all heat maps together have, as far as the results say."""
    sampling = results.identity.sampling
    pairs = sum(summary.num_pairs for summary in results.variants.values())
    return pairs * (sampling.width or 1024) * (sampling.height or 1024)


def _in_order(parts: Sequence[Part], results: Results) -> list[Part]:
    """What is about scores of these results, in the order of the cards."""
    known = list(formatting.scores_by_name(results))
    return sorted((one for one in parts if one.score in known), key=lambda one: known.index(one.score))


def _first_sort(results: Results, made: Sequence[ScoreCard]) -> str:
    """The score that the gallery is sorted by at first: that of the gate that fared worst, or the first one."""
    names = [card.score.name for card in made]
    wanted = [gate.score for verdict in ("failed", "inconclusive") for gate in results.gates if gate.verdict == verdict]
    return next((name for name in [*wanted, *names] if name in names), ":order")


# ---------------------------------------------------------------- template


def _environment(results: Results) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "words": formatting,
        "charts": charts,
        "scores": formatting.scores_by_name(results),
        "colour": {name: number % 6 for number, name in enumerate(results.variants)},
        "places": {(row.prompt.id, row.seed): number for number, row in enumerate(results.samples)},
        "smallest_group": MIN_GROUP_SIZE,
        "worse_than_all": is_worse_than_overall,
        "asset": _asset,
        "scripts": SCRIPTS,
    }
    bound: dict[str, Callable[..., str]] = {
        "gate_title": lambda gate: formatting.format_gate(gate, results),
        "gate_amount": lambda value, gate: formatting.format_gate_value(value, gate, results),
        "gate_remarks": lambda gate: formatting.format_gate_remarks(gate, results),
        "gate_interval": lambda gate: formatting.format_gate_interval(gate, results),
    }
    environment.globals |= bound
    return environment


def _asset(name: str) -> Markup:
    """A style sheet or script of our own, as it is."""
    return Markup((ASSETS / name).read_text("utf-8"))


def _embedded(data: dict[str, Any]) -> Markup:
    """JSON that a script element may hold: nothing in it can end the element or begin a comment."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
