"""What is shown of a run: numbers that algebra gives, and sentences where there is no number."""

from __future__ import annotations

from typing import Any

import pytest
from markdown_it import MarkdownIt

from edgepress.perf.machine import MachineInfo
from edgepress.perf.power import CpufreqPolicy, PowerState
from edgepress.perf.report import render_report
from edgepress.perf.schema import (
    BenchResults,
    BenchSettings,
    ImageTiming,
    MemoryPeaks,
    RunConditions,
    summarize_timings,
)

NOWHERE = MachineInfo(
    model=None, cpu=None, architecture="aarch64", cores=4, virtual=None, memory=None, swap=None, system=None,
    release=None, kernel="6.6", python="3.11.2",
)  # fmt: skip
PI = NOWHERE.model_copy(update={"model": "Raspberry Pi 5 | Rev 1.0", "memory": 8_000_000_000})
UNTOLD = RunConditions(
    power=PowerState(mode=None, policies=[]), temperatures={}, max_temperatures={}, throttling={}, available_memory=None
)
TOLD = RunConditions(
    power=PowerState(
        mode=None,
        policies=[CpufreqPolicy(cores="0 1 2 3", governor="ondemand", min_hz=1_500_000_000, max_hz=2_400_000_000)],
    ),
    temperatures={"cpu (0)": 48.3},
    max_temperatures={"cpu (0)": 71.25},
    throttling={"vcgencmd get_throttled": ("never since boot", "throttled since boot")},
    available_memory=7_000_000_000,
)


def picture(number: int, leak: int = 0) -> ImageTiming:
    """The first takes 2 s and 1 more to load graphs; later ones (100 + number) ms, of which 10 a step."""
    return ImageTiming(
        prompt=f"p{number}",
        seed=number,
        seconds=0.1 + number / 1000 if number else 3.0,
        loading=0.0 if number else 1.0,
        text_encoder=0.02,
        steps=[0.01, 0.01],
        decoder=0.03,
        rss=200_000_000 + leak * number,
        peak_rss=300_000_000,
    )


def run_of(
    images: int, leak: int = 0, partial: str | None = None, keep: bool = True, machine: MachineInfo = PI, **more: Any
) -> BenchResults:
    pictures = [picture(number, leak) for number in range(images + 1)]
    settings = BenchSettings(
        num_images=100,
        size=(128, 256),
        steps=2,
        tile_size=None,
        seed=0,
        keep_loaded=keep,
        prompt_set="smoke",
        prompts_sha256="0" * 64,
    )
    return BenchResults(
        edgepress="0.1.0", started_at="2026-01-02T03:04:05+00:00", artifact="out", engine="ONNX Runtime 1.31.1, CPU",
        simulated=more.get("simulated", False),
        incomplete_reason=partial, machine=machine, conditions=more.get("conditions", TOLD), settings=settings,
        summary=summarize_timings(0.5, pictures, keep), memory=MemoryPeaks(peak=300_000_000, anon=250_000_000, file_backed=50_000_000),
        disk_bytes_read=40_000_000, file_sizes={"a.onnx": 1_000_000, "b.safetensors": 39_000_000}, truncation_notices=[], images=pictures,
    )  # fmt: skip


def tables(text: str) -> dict[str, list[str]]:
    """All rows of all tables by their first cell, as a Markdown reader of another house reads them."""
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


def test_the_first_table_is_one_row_of_the_device() -> None:
    found = tables(render_report(run_of(100)))
    assert found["device"] == ["start-up", "per image", "100-image peak memory"]
    device = "Raspberry Pi 5 | Rev 1.0, 4 cores, 8.0 GB; ondemand, 1.50 GHz to 2.40 GHz"
    assert found[device] == ["1.50 s", "0.150 s", "300.0 MB"]


def test_percentiles_need_their_n() -> None:
    many, few = tables(render_report(run_of(100))), tables(render_report(run_of(50)))
    assert many["time"] == ["n", "p50", "p90", "p99", "longest", "mean"]
    assert many["image"] == ["100", "0.150 s", "0.190 s", "0.199 s", "0.200 s", "0.150 s"]
    assert few["image"] == ["50", "0.125 s", "0.145 s", "n < 100", "0.150 s", "0.126 s"]
    assert few["step"][:4] == ["100", "10.0 ms", "10.0 ms", "10.0 ms"]


def test_start_up_is_apart_from_the_first_picture() -> None:
    found = tables(render_report(run_of(3)))
    assert found["loading the graphs"] == ["1.00 s"]
    assert found["start-up: both"] == ["1.50 s"]
    assert found["first image, after that"] == ["2.00 s"]
    assert found["read from the disk until then"] == ["40.0 MB of 40.0 MB"]


def test_graphs_that_come_and_go_are_part_of_each_picture() -> None:
    found = tables(render_report(run_of(3, keep=False)))
    assert found["loading the graphs"] == ["again for each image"]
    assert found["start-up: both"] == ["0.500 s"]
    assert found["first image, after that"] == ["3.00 s"]


@pytest.mark.parametrize(
    ("leak", "sentence"),
    [(0, "Memory: no drift seen; +0.000 MB per 100 images"), (20_000, "Memory: rises; +2.000 MB per 100 images")],
)
def test_a_leak_is_told(leak: int, sentence: str) -> None:
    assert sentence in render_report(run_of(100, leak))
    assert "Memory: no drift can be told from 9 images; it takes 10." in render_report(run_of(9, leak))


def test_a_run_that_ended_early_says_so_first() -> None:
    text = render_report(run_of(12, partial="interrupted"))
    assert text.index("**Partial: 12 of 100 images.** Why: interrupted.") < text.index("## Time")
    assert "12-image peak memory" in text


def test_a_run_of_the_first_picture_alone_has_no_time_per_image() -> None:
    found = tables(render_report(run_of(0, partial="interrupted")))
    assert found["device"][2] == "0-image peak memory"
    assert next(cells for name, cells in found.items() if name.startswith("Raspberry"))[1] == "not measured"


def test_a_simulators_times_are_labelled() -> None:
    text = render_report(run_of(3, simulated=True))
    assert "**Simulated: neither these times nor this memory say anything of a board.**" in text
    assert "| simulator on Raspberry Pi 5" in text


def test_what_is_not_known_is_said() -> None:
    found = tables(render_report(run_of(3, machine=NOWHERE, conditions=UNTOLD)))
    assert "a machine not known (aarch64), 4 cores, not known; power mode not known" in found
    names = ("model", "virtual machine", "swap", "system", "power mode (nvpmodel)", "clocks (cpufreq)")
    names += ("temperature at the beginning, at most", "throttling before, after")
    assert {name: found[name] for name in names} == {name: ["not known"] for name in names}


def test_what_is_known_is_said() -> None:
    found = tables(render_report(run_of(3)))
    assert found["clocks (cpufreq)"] == ["cores 0 1 2 3: ondemand, 1.50 GHz to 2.40 GHz"]
    assert found["temperature at the beginning, at most"] == ["cpu (0) 48.3, 71.2 °C"]
    assert found["throttling before, after"] == ["vcgencmd get_throttled: never since boot, then throttled since boot"]
