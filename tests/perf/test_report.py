"""Reports of made-up results: numbers that follow by algebra, and texts where there is no number."""

from __future__ import annotations

import pytest
from helpers.bench_results import UNKNOWN_CONDITIONS, UNKNOWN_MACHINE, make_results
from markdown_it import MarkdownIt

from edgepress.perf.report import render_report


def parse_tables(text: str) -> dict[str, list[str]]:
    """Parses all rows of all tables with a Markdown library; returns them by their first cell."""
    rows: dict[str, list[str]] = {}
    cells: list[str] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "tr_open":
            cells = []
        elif token.type == "inline" and token.level > 3:
            cells.append(token.content)
        elif token.type == "tr_close":
            rows[cells[0]] = cells[1:]
    return rows


def test_first_table_has_one_row_for_the_device() -> None:
    rows = parse_tables(render_report(make_results(100)))
    assert rows["device"] == ["startup", "per image", "100-image peak memory"]
    device = "Raspberry Pi 5 | Rev 1.0, 4 cores, 8.0 GB; ondemand, 1.50 GHz to 2.40 GHz"
    assert rows[device] == ["1.50 s", "0.150 s", "300.0 MB"]


def test_percentiles_need_enough_samples() -> None:
    many, few = (parse_tables(render_report(make_results(count))) for count in (100, 50))
    assert many["time"] == ["n", "p50", "p90", "p99", "max", "mean"]
    assert many["image"] == ["100", "0.150 s", "0.190 s", "0.199 s", "0.200 s", "0.150 s"]
    assert few["image"] == ["50", "0.125 s", "0.145 s", "n < 100", "0.150 s", "0.126 s"]
    assert few["step"][:4] == ["100", "10.0 ms", "10.0 ms", "10.0 ms"]


def test_startup_is_separate_from_the_first_image() -> None:
    rows = parse_tables(render_report(make_results(3)))
    assert rows["loading the graphs"] == ["1.00 s"]
    assert rows["startup: both"] == ["1.50 s"]
    assert rows["first image, after startup"] == ["2.00 s"]
    assert rows["read from disk until then"] == ["40.0 MB of 40.0 MB"]


def test_graphs_loaded_for_each_image_are_part_of_it() -> None:
    rows = parse_tables(render_report(make_results(3, keep_loaded=False)))
    assert rows["loading the graphs"] == ["again for each image"]
    assert rows["startup: both"] == ["0.500 s"]
    assert rows["first image, after startup"] == ["3.00 s"]


@pytest.mark.parametrize(
    ("leak", "text"),
    [
        (0, "Memory: no significant drift; +0.000 MB per 100"),
        (20_000, "Memory: rises; +2.000 MB per 100 images"),
    ],
)
def test_memory_drift(leak: int, text: str) -> None:
    assert text in render_report(make_results(100, leak))
    assert "Memory: too few images for a drift (9 of at least 10)." in render_report(make_results(9, leak))


def test_incomplete_run_is_marked_at_the_top() -> None:
    text = render_report(make_results(12, incomplete_reason="interrupted"))
    assert text.index("**Incomplete: 12 of 100 images.** Reason: interrupted.") < text.index("## Time")
    assert "12-image peak memory" in text


def test_run_with_the_first_image_alone_has_no_time_per_image() -> None:
    rows = parse_tables(render_report(make_results(0, incomplete_reason="interrupted")))
    assert rows["device"][2] == "0-image peak memory"
    assert next(cells for name, cells in rows.items() if name.startswith("Raspberry"))[1] == "not measured"


def test_simulator_is_marked() -> None:
    text = render_report(make_results(3, simulated=True))
    assert "**Simulated: these times and this memory say nothing about a board.**" in text
    assert "| simulator on Raspberry Pi 5" in text


def test_missing_values_are_unknown() -> None:
    results = make_results(3, machine=UNKNOWN_MACHINE, conditions=UNKNOWN_CONDITIONS)
    rows = parse_tables(render_report(results))
    assert "unknown machine (aarch64), 4 cores, unknown; power mode unknown" in rows
    names = ("model", "virtual machine", "swap", "system", "power mode (nvpmodel)", "clocks (cpufreq)")
    names += ("temperature at the start, maximum", "throttling before, after")
    assert {name: rows[name] for name in names} == {name: ["unknown"] for name in names}


def test_conditions() -> None:
    rows = parse_tables(render_report(make_results(3)))
    assert rows["clocks (cpufreq)"] == ["cores 0 1 2 3: ondemand, 1.50 GHz to 2.40 GHz"]
    assert rows["temperature at the start, maximum"] == ["cpu (0) 48.3, 71.2 °C"]
    assert rows["throttling before, after"] == ["vcgencmd get_throttled: never since boot, then throttled since boot"]
