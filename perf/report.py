"""What is shown of a run, as Markdown whose tables are aligned, so that a terminal can show it as it is."""

from __future__ import annotations

from collections.abc import Sequence

from .drift import MIN_VALUES, Drift
from .percentiles import PERCENTILES, min_samples
from .power import CpufreqPolicy, PowerState
from .schema import BenchResults, ImageTiming, LatencyStats

UNKNOWN = "not known"
NOT_MEASURED = "not measured"

Cells = Sequence[str]


def render_report(results: BenchResults) -> str:
    """The whole report; the first table is what tables of several devices are put together from."""
    sections = [
        _format_heading(results),
        format_table(
            ["device", "start-up", "per image", f"{_count_images(results)}-image peak memory"],
            [_make_device_row(results)],
        ),
        _format_notes(results),
        "## Time",
        _format_startup(results),
        _format_latencies(results),
        "## Memory and disk",
        _format_memory(results),
        "## Machine",
        _format_machine(results),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def format_table(head: Cells, rows: Sequence[Cells]) -> str:
    """A Markdown table of aligned columns; all but the first are numbers, to the right."""
    widths = [max(len(line[column]) for line in [head, *rows]) for column in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(f"| {' | '.join(_pad_cells(line, widths))} |" for line in [head, rule, *rows])


def _pad_cells(line: Cells, widths: Sequence[int]) -> list[str]:
    first, *others = (cell.replace("|", "\\|") for cell in line)
    return [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]


# ---------------------------------------------------------------- what comes first


def _format_heading(results: BenchResults) -> str:
    return f"# edgepress bench: {results.artifact}"


def _make_device_row(results: BenchResults) -> Cells:
    times = results.summary.latencies
    return [
        f"{describe_device(results)}; {describe_power(results.conditions.power)}",
        format_seconds(results.summary.startup),
        _format_percentile(times["image"], 50) if times else NOT_MEASURED,
        format_megabytes(results.memory.peak),
    ]


def _count_images(results: BenchResults) -> int:
    return len(results.images) - 1


def _format_notes(results: BenchResults) -> str:
    """What the table does not say of itself."""
    height, width = results.settings.size
    held = "all graphs in memory" if results.settings.keep_loaded else "one graph in memory at a time"
    tiled = f", decoded in tiles of {results.settings.tile_size}" if results.settings.tile_size else ""
    steps = f"{results.settings.steps} step{'s' if results.settings.steps > 1 else ''}"
    count = results.settings.num_images
    notes = [
        f"Pictures of {height}x{width} in {steps}{tiled}, {held}; {results.engine}.",
        f"Per image: the median of {_count_images(results)}, after a first one.",
    ]
    if results.simulated:
        notes.insert(0, "**Simulated: neither these times nor this memory say anything of a board.**")
    if results.incomplete_reason:
        notes.insert(
            0, f"**Partial: {_count_images(results)} of {count} images.** Why: {results.incomplete_reason.rstrip('.')}."
        )
    return " ".join([*notes, *results.truncation_notices])


# ---------------------------------------------------------------- details


def _format_startup(results: BenchResults) -> str:
    found = results.summary
    rows = [
        ["from the process's start until it can read a prompt", format_seconds(found.process_start)],
        [
            "loading the graphs",
            format_seconds(found.graph_loading) if results.settings.keep_loaded else "again for each image",
        ],
        ["start-up: both", format_seconds(found.startup)],
        ["first image, after that", format_seconds(found.first_image)],
        [
            "read from the disk until then",
            f"{_format_disk_read(results)} of {format_megabytes(_total_file_size(results))}",
        ],
    ]
    return format_table(["start-up", ""], rows)


def _format_disk_read(results: BenchResults) -> str:
    return UNKNOWN if results.disk_bytes_read is None else format_megabytes(results.disk_bytes_read)


def _format_latencies(results: BenchResults) -> str:
    head = ["time", "n", *(f"p{percent}" for percent in PERCENTILES), "longest", "mean"]
    rows = [_make_latency_row(name, found) for name, found in results.summary.latencies.items()]
    if not rows:
        return ""
    return (
        format_table(head, rows)
        + f"\n\n{_format_drift(results.summary.latency_drift, results, 1000, 'ms', 'Time per image')}"
    )


def _make_latency_row(name: str, found: LatencyStats) -> Cells:
    known = [_format_percentile(found, percent) for percent in PERCENTILES]
    return [name, str(found.n), *known, format_seconds(found.max), format_seconds(found.mean)]


def _format_percentile(found: LatencyStats, percent: int) -> str:
    value = found.percentiles[f"p{percent}"]
    return f"n < {min_samples(percent)}" if value is None else format_seconds(value)


def _format_memory(results: BenchResults) -> str:
    pictures = results.images
    rows = [
        ["most that the process held", format_megabytes(results.memory.peak)],
        ["most of its own", format_megabytes(results.memory.anon)],
        ["most of files that it maps", format_megabytes(results.memory.file_backed)],
        ["held after the first image", format_megabytes(pictures[0].rss)],
        *_make_last_rss_rows(pictures),
        ["artifact on the disk", format_megabytes(_total_file_size(results))],
    ]
    return (
        format_table(["memory and disk", ""], rows)
        + "\n\n"
        + _format_drift(results.summary.memory_drift, results, 1e-6, "MB", "Memory")
    )


def _make_last_rss_rows(pictures: Sequence[ImageTiming]) -> list[Cells]:
    return [[f"held after image {len(pictures) - 1}", format_megabytes(pictures[-1].rss)]] if len(pictures) > 1 else []


def _format_drift(found: Drift | None, results: BenchResults, factor: float, unit: str, what: str) -> str:
    """A slope in a unit per 100 images, and whether it is one."""
    if found is None:
        return f"{what}: no drift can be told from {_count_images(results)} images; it takes {MIN_VALUES}."
    slope, low, high = (f"{factor * value:+.3f}" for value in (found.slope, found.low, found.high))
    verdict = ("rises" if found.low > 0 else "falls") if found.is_significant else "no drift seen"
    return f"{what}: {verdict}; {slope} {unit} per 100 images, 95 % [{low}, {high}] (Theil and Sen, n = {found.n})."


def _format_machine(results: BenchResults) -> str:
    machine, conditions = results.machine, results.conditions
    virtual = {None: UNKNOWN, True: "yes", False: "no"}[machine.virtual]
    rows = [
        ["model", machine.model or UNKNOWN],
        ["processor", f"{machine.cpu or UNKNOWN} ({machine.architecture})"],
        ["virtual machine", virtual],
        ["cores that it may use", str(machine.cores)],
        [
            "memory, free of it at the beginning",
            f"{_format_gigabytes(machine.memory)}, {_format_gigabytes(conditions.available_memory)}",
        ],
        ["swap", _format_gigabytes(machine.swap)],
        ["system", machine.system or UNKNOWN],
        *([["release", machine.release]] if machine.release else []),
        ["kernel", machine.kernel],
        ["power mode (nvpmodel)", conditions.power.mode or UNKNOWN],
        ["clocks (cpufreq)", _format_policies(conditions.power)],
        ["temperature at the beginning, at most", _format_temperatures(results)],
        ["throttling before, after", _format_throttling(results)],
        ["Python, edgepress", f"{machine.python}, {results.edgepress}"],
        ["runs graphs", results.engine],
        ["begun", results.started_at],
    ]
    return format_table(["machine", ""], rows)


def _format_policies(found: PowerState) -> str:
    return "; ".join(f"cores {clock.cores or UNKNOWN}: {_format_policy(clock)}" for clock in found.policies) or UNKNOWN


def _format_temperatures(results: BenchResults) -> str:
    begin, most = results.conditions.temperatures, results.conditions.max_temperatures
    return "; ".join(f"{zone} {begin[zone]:.1f}, {most[zone]:.1f} °C" for zone in begin if zone in most) or UNKNOWN


def _format_throttling(results: BenchResults) -> str:
    found = results.conditions.throttling
    return "; ".join(f"{source}: {before}, then {after}" for source, (before, after) in found.items()) or UNKNOWN


# ---------------------------------------------------------------- words


def describe_device(results: BenchResults) -> str:
    """What the machine is called, its cores and its memory."""
    machine = results.machine
    name = machine.model or machine.cpu or f"a machine {UNKNOWN} ({machine.architecture})"
    virtual = " (virtual)" if machine.virtual else ""
    simulated = "simulator on " if results.simulated else ""
    return f"{simulated}{name}{virtual}, {machine.cores} cores, {_format_gigabytes(machine.memory)}"


def describe_power(found: PowerState) -> str:
    """The power mode in a few words."""
    clocks = sorted({_format_policy(clock) for clock in found.policies})
    said = [f"nvpmodel {found.mode}"] if found.mode else []
    return "; ".join([*said, *clocks]) or f"power mode {UNKNOWN}"


def format_seconds(value: float) -> str:
    """Three digits; below a tenth in milliseconds."""
    if value < 0.1:
        return f"{1000 * value:#.3g} ms"
    return f"{value:.0f} s" if value >= 100 else f"{value:#.3g} s"


def format_megabytes(value: int) -> str:
    return f"{value / 1e6:,.1f} MB"


def _format_gigabytes(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value / 1e9:.1f} GB"


def _format_policy(clock: CpufreqPolicy) -> str:
    least, most = (UNKNOWN if hertz is None else f"{hertz / 1e9:.2f} GHz" for hertz in (clock.min_hz, clock.max_hz))
    return f"{clock.governor or UNKNOWN}, {least} to {most}"


def _total_file_size(results: BenchResults) -> int:
    return sum(results.file_sizes.values())
