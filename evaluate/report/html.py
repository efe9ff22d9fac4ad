"""The page: one file that needs nothing else, neither the network nor the pictures that it was made from."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..results import Change, Results
from ..table import SMALLEST_GROUP
from . import cases, charts, heat, words
from .cards import Card, cards_of, worse_than_all
from .thumbnails import BUDGET, Thumbnails

Part = TypeVar("Part", charts.Trend, Change)
ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("data.js", "gallery.js", "viewer.js")  # one after the other, as one module


def page(results: Results, folder: Path, budget: int = BUDGET) -> str:
    """The page as it is to stand in `folder`, with at most so many bytes of pictures."""
    drawn = heat.chosen(_pixels(results))
    gallery = cases.gallery(results, folder, drawn, Thumbnails(budget))
    template = _environment(results).get_template("report.html")
    made = cards_of(results)
    return template.render(
        results=results,
        data=_embedded(gallery.data),
        gallery=gallery,
        cards=made,
        first_sort=_first_sort(results, made),
        trends=_in_order(charts.trends(results.history or ()), results),
        changes=_in_order(results.baseline.changes if results.baseline else (), results),
        gradient=heat.gradient(),
        heat=drawn,
    )


def _pixels(results: Results) -> int:
    """How many pixels all heat maps together have, as far as the results say."""
    sampling = results.identity.sampling
    pairs = sum(summary.pictures for summary in results.variants.values())
    return pairs * (sampling.width or 1024) * (sampling.height or 1024)


def _in_order(parts: Sequence[Part], results: Results) -> list[Part]:
    """What is about scores of these results, in the order of the cards."""
    known = list(words.scores_of(results))
    return sorted((one for one in parts if one.score in known), key=lambda one: known.index(one.score))


def _first_sort(results: Results, made: Sequence[Card]) -> str:
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
        "words": words,
        "charts": charts,
        "scores": words.scores_of(results),
        "colour": {name: number % 6 for number, name in enumerate(results.variants)},
        "places": {(row.prompt.id, row.seed): number for number, row in enumerate(results.rows)},
        "smallest_group": SMALLEST_GROUP,
        "worse_than_all": worse_than_all,
        "asset": _asset,
        "scripts": SCRIPTS,
    }
    bound: dict[str, Callable[..., str]] = {
        "gate_title": lambda gate: words.gate_title(gate, results),
        "gate_amount": lambda value, gate: words.gate_amount(value, gate, results),
        "gate_remarks": lambda gate: words.gate_remarks(gate, results),
        "gate_interval": lambda gate: words.gate_interval(gate, results),
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
