"""The HTML report: a single file that needs neither the network nor the image files it was made from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ..results.schema import Results, ScoreChange
from . import charts, costs, descriptions, formatting
from .cards import ScoreCard, build_cards, get_primary_mean, get_summary, is_worse_than_overall
from .charts import Trend
from .gallery import build_gallery, embed_images
from .heatmap import sample_colormap, select_heatmap
from .thumbnails import MAX_BYTES, Thumbnails

ScoreItem = TypeVar("ScoreItem", Trend, ScoreChange)
ASSETS = Path(__file__).parent / "assets"
SCRIPTS = ("data.js", "gallery.js", "viewer.js")  # joined in this order to one module
NUM_COLORS = 6  # of variants, in the style sheet
DEFAULT_SIDE = 1024  # assumed for images of unknown size


def render(results: Results, folder: Path, max_bytes: int = MAX_BYTES) -> str:
    """Renders the page.

    Args:
        results: the results.
        folder: the folder where the page will be saved, which links are relative to.
        max_bytes: budget for the embedded images.
    """
    (page,) = render_pages(results, [folder], max_bytes)
    return page


def render_pages(results: Results, folders: Sequence[Path], max_bytes: int = MAX_BYTES) -> list[str]:
    """Renders the page for several folders. The pages differ in their links only.

    Args:
        results: the results.
        folders: the folders where the pages will be saved, which their links are relative to.
        max_bytes: budget for the embedded images.
    """
    heatmap = select_heatmap(_count_heatmap_pixels(results))
    album = embed_images(results, heatmap, Thumbnails(max_bytes))
    images = _embed_json(album.thumbnails.data_urls)  # up to 16 MB, once for all pages
    cards = build_cards(results)
    template = _make_environment(results).get_template("report.html")
    values = {
        "results": results,
        "cards": cards,
        "default_sort": _select_default_sort(results, cards),
        "trends": _order_by_score(charts.build_trends(results.history or ()), results),
        "changes": _order_by_score(results.baseline.changes if results.baseline else (), results),
        "gradient": sample_colormap(),
        "heatmap": heatmap,
    }
    galleries = [build_gallery(album, folder) for folder in folders]
    return [
        template.render(values, gallery=gallery, data=_embed_data(gallery.data, images=images)) for gallery in galleries
    ]


def _count_heatmap_pixels(results: Results) -> int:
    """Estimates the number of pixels of all heat maps."""
    sampling = results.identity.sampling
    num_pairs = sum(summary.num_pairs for summary in results.variants.values())
    return num_pairs * (sampling.width or DEFAULT_SIDE) * (sampling.height or DEFAULT_SIDE)


def _order_by_score(items: Sequence[ScoreItem], results: Results) -> list[ScoreItem]:
    """Sorts items about scores of these results in the order of the cards, and drops the others."""
    names = list(formatting.index_scores(results))
    return sorted((item for item in items if item.score in names), key=lambda item: names.index(item.score))


def _select_default_sort(results: Results, cards: Sequence[ScoreCard]) -> str:
    """Selects the score by which the gallery is sorted at first: that of the worst gate, or else the first one."""
    names = [card.score.name for card in cards]
    gated = [gate.score for verdict in ("failed", "inconclusive") for gate in results.gates if gate.verdict == verdict]
    return next((name for name in [*gated, *names] if name in names), ":order")


# ---------------------------------------------------------------- template


def open_templates() -> Environment:
    """An environment for the templates in `assets`, which escapes all that it is given, with what all of them use."""
    environment = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {
        "formatting": formatting,
        "descriptions": descriptions,
        "costs": costs,
        "read_asset": _read_asset,
    }
    return environment


def _make_environment(results: Results) -> Environment:
    environment = open_templates()
    environment.globals |= {
        "charts": charts,
        "scores": formatting.index_scores(results),
        "colors": {name: number % NUM_COLORS for number, name in enumerate(results.variants)},
        "sample_indices": {(sample.prompt.id, sample.seed): index for index, sample in enumerate(results.samples)},
        "get_summary": get_summary,
        "get_primary_mean": get_primary_mean,
        "is_worse_than_overall": is_worse_than_overall,
        "scripts": SCRIPTS,
        "format_gate": partial(formatting.format_gate, results=results),
        "format_gate_value": partial(formatting.format_gate_value, results=results),
        "format_gate_interval": partial(formatting.format_gate_interval, results=results),
        "format_gate_remarks": partial(formatting.format_gate_remarks, results=results),
    }
    return environment


def _read_asset(name: str) -> Markup:
    """Reads a style sheet or script, which is inserted unescaped."""
    return Markup((ASSETS / name).read_text("utf-8"))


def _embed_data(data: dict[str, Any], **embedded: Markup) -> Markup:
    """Returns JSON for a script element, with further values that are JSON already."""
    values = {name: _embed_json(value) for name, value in data.items()} | embedded
    return Markup("{{{}}}").format(Markup(",").join(Markup('"{}":{}').format(name, values[name]) for name in values))


def _embed_json(data: Any) -> Markup:
    """Returns JSON for a script element: nothing in it can end the element or begin a comment."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
