"""Renders the results of a benchmark as Markdown whose tables are aligned, so that a terminal can show it as it is."""

from __future__ import annotations

from collections.abc import Sequence

from .drift import MIN_VALUES, Drift
from .percentiles import PERCENTILES, min_samples
from .power import CpufreqPolicy, PowerState
from .schema import BenchResults, LatencyStats

UNKNOWN = "unknown"
NOT_MEASURED = "not measured"

Cells = Sequence[str]


def render_report(results: BenchResults) -> str:
    """Renders the whole report; its first table has one row, to be merged with those of other devices."""
    sections = [
        f"# edgepress bench: {results.artifact}",
        format_table(
            ["device", "startup", "per image", f"{_count_images(results)}-image peak memory"],
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


def format_table(header: Cells, rows: Sequence[Cells]) -> str:
    """Formats an aligned Markdown table; all columns but the first are right-aligned."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(f"| {' | '.join(_pad_cells(row, widths))} |" for row in [header, rule, *rows])


def _pad_cells(row: Cells, widths: Sequence[int]) -> list[str]:
    first, *rest = (cell.replace("|", "\\|") for cell in row)
    return [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))]


# ---------------------------------------------------------------- summary


def _make_device_row(results: BenchResults) -> Cells:
    latencies = results.summary.latencies
    return [
        f"{describe_device(results)}; {describe_power(results.conditions.power)}",
        format_seconds(results.summary.startup),
        _format_percentile(latencies["image"], 50) if latencies else NOT_MEASURED,
        format_megabytes(results.memory.peak),
    ]


def _count_images(results: BenchResults) -> int:
    """Returns the number of images besides the first one."""
    return len(results.images) - 1


def _format_notes(results: BenchResults) -> str:
    """Formats what the first table leaves out."""
    settings = results.settings
    height, width = settings.size
    memory = "all graphs in memory" if settings.keep_loaded else "one graph in memory at a time"
    tiles = f", decoded in tiles of {settings.tile_size} pixels" if settings.tile_size else ""
    steps = f"{settings.steps} step{'s' if settings.steps > 1 else ''}"
    notes = [
        f"Images of {height}x{width} in {steps}{tiles}, {memory}; {results.engine}.",
        f"Per image: the median of {_count_images(results)} images after a first one.",
    ]
    if results.simulated:
        notes.insert(0, "**Simulated: these times and this memory say nothing about a board.**")
    if results.incomplete_reason:
        reason = results.incomplete_reason.rstrip(".")
        notes.insert(0, f"**Incomplete: {_count_images(results)} of {settings.num_images} images.** Reason: {reason}.")
    return " ".join([*notes, *results.truncation_notices])


# ---------------------------------------------------------------- details


def _format_startup(results: BenchResults) -> str:
    summary = results.summary
    disk = UNKNOWN if results.disk_bytes_read is None else format_megabytes(results.disk_bytes_read)
    loading = format_seconds(summary.graph_loading) if results.settings.keep_loaded else "again for each image"
    rows = [
        ["process start until it accepts a prompt", format_seconds(summary.process_start)],
        ["loading the graphs", loading],
        ["startup: both", format_seconds(summary.startup)],
        ["first image, after startup", format_seconds(summary.first_image)],
        ["read from disk until then", f"{disk} of {format_megabytes(_total_file_size(results))}"],
    ]
    return format_table(["startup", ""], rows)


def _format_latencies(results: BenchResults) -> str:
    header = ["time", "n", *(f"p{percent}" for percent in PERCENTILES), "max", "mean"]
    rows = [_make_latency_row(name, stats) for name, stats in results.summary.latencies.items()]
    if not rows:
        return ""
    drift = _format_drift(results.summary.latency_drift, results, 1000, "ms", "Time per image")
    return f"{format_table(header, rows)}\n\n{drift}"


def _make_latency_row(name: str, stats: LatencyStats) -> Cells:
    percentiles = [_format_percentile(stats, percent) for percent in PERCENTILES]
    return [name, str(stats.n), *percentiles, format_seconds(stats.max), format_seconds(stats.mean)]


def _format_percentile(stats: LatencyStats, percent: int) -> str:
    value = stats.percentiles[f"p{percent}"]
    return f"n < {min_samples(percent)}" if value is None else format_seconds(value)


def _format_memory(results: BenchResults) -> str:
    images, memory = results.images, results.memory
    rows = [
        ["peak resident set size (RSS)", format_megabytes(memory.peak)],
        ["peak of anonymous memory", format_megabytes(memory.anon)],
        ["peak of mapped files", format_megabytes(memory.file_backed)],
        ["RSS after the first image", format_megabytes(images[0].rss)],
    ]
    if len(images) > 1:
        rows.append([f"RSS after image {len(images) - 1}", format_megabytes(images[-1].rss)])
    rows.append(["artifact on disk", format_megabytes(_total_file_size(results))])
    drift = _format_drift(results.summary.memory_drift, results, 1e-6, "MB", "Memory")
    return f"{format_table(['memory and disk', ''], rows)}\n\n{drift}"


def _format_drift(drift: Drift | None, results: BenchResults, factor: float, unit: str, quantity: str) -> str:
    """Formats a slope in a unit per 100 images, and whether it is significant."""
    if drift is None:
        return f"{quantity}: too few images for a drift ({_count_images(results)} of at least {MIN_VALUES})."
    slope, low, high = (f"{factor * value:+.3f}" for value in (drift.slope, drift.low, drift.high))
    verdict = ("rises" if drift.low > 0 else "falls") if drift.is_significant else "no significant drift"
    interval = f"95 % confidence interval [{low}, {high}]"
    return f"{quantity}: {verdict}; {slope} {unit} per 100 images, {interval} (Theil-Sen, n = {drift.n})."


def _format_machine(results: BenchResults) -> str:
    machine, conditions = results.machine, results.conditions
    virtual = {None: UNKNOWN, True: "yes", False: "no"}[machine.virtual]
    total, available = (_format_gigabytes(value) for value in (machine.memory, conditions.available_memory))
    rows = [
        ["model", machine.model or UNKNOWN],
        ["processor", f"{machine.cpu or UNKNOWN} ({machine.architecture})"],
        ["virtual machine", virtual],
        ["usable cores", str(machine.cores)],
        ["memory, available at the start", f"{total}, {available}"],
        ["swap", _format_gigabytes(machine.swap)],
        ["system", machine.system or UNKNOWN],
        *([["release", machine.release]] if machine.release else []),
        ["kernel", machine.kernel],
        ["power mode (nvpmodel)", conditions.power.mode or UNKNOWN],
        ["clocks (cpufreq)", _format_policies(conditions.power)],
        ["temperature at the start, maximum", _format_temperatures(results)],
        ["throttling before, after", _format_throttling(results)],
        ["Python, edgepress", f"{machine.python}, {results.edgepress}"],
        ["engine", results.engine],
        ["started", results.started_at],
    ]
    return "\n\n".join(filter(None, [format_table(["machine", ""], rows), " ".join(machine.arithmetic)]))


def _format_policies(power: PowerState) -> str:
    policies = [f"cores {policy.cores or UNKNOWN}: {_format_policy(policy)}" for policy in power.policies]
    return "; ".join(policies) or UNKNOWN


def _format_temperatures(results: BenchResults) -> str:
    start, maximum = results.conditions.temperatures, results.conditions.max_temperatures
    zones = [f"{zone} {start[zone]:.1f}, {maximum[zone]:.1f} °C" for zone in start if zone in maximum]
    return "; ".join(zones) or UNKNOWN


def _format_throttling(results: BenchResults) -> str:
    throttling = results.conditions.throttling
    return "; ".join(f"{source}: {before}, then {after}" for source, (before, after) in throttling.items()) or UNKNOWN


# ---------------------------------------------------------------- values


def describe_device(results: BenchResults) -> str:
    """Returns the name of the machine, its cores and its memory."""
    machine = results.machine
    name = machine.model or machine.cpu or f"{UNKNOWN} machine ({machine.architecture})"
    virtual = " (virtual)" if machine.virtual else ""
    simulated = "simulator on " if results.simulated else ""
    return f"{simulated}{name}{virtual}, {machine.cores} cores, {_format_gigabytes(machine.memory)}"


def describe_power(power: PowerState) -> str:
    """Returns the power mode and the range of frequencies."""
    mode = [f"nvpmodel {power.mode}"] if power.mode else []
    policies = sorted({_format_policy(policy) for policy in power.policies})
    return "; ".join([*mode, *policies]) or f"power mode {UNKNOWN}"


def format_seconds(value: float) -> str:
    """Formats a time with three significant digits, in milliseconds below a tenth of a second."""
    if value < 0.1:
        return f"{1000 * value:#.3g} ms"
    return f"{value:.0f} s" if value >= 100 else f"{value:#.3g} s"


def format_megabytes(value: int) -> str:
    """Formats a number of bytes in megabytes."""
    return f"{value / 1e6:,.1f} MB"


def _format_gigabytes(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value / 1e9:.1f} GB"


def _format_policy(policy: CpufreqPolicy) -> str:
    low, high = (UNKNOWN if hertz is None else f"{hertz / 1e9:.2f} GHz" for hertz in (policy.min_hz, policy.max_hz))
    return f"{policy.governor or UNKNOWN}, {low} to {high}"


def _total_file_size(results: BenchResults) -> int:
    return sum(results.file_sizes.values())
