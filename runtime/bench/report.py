"""What is shown of a run, as Markdown whose tables are aligned, so that a terminal can show it as it is."""

from __future__ import annotations

from collections.abc import Sequence

from .drift import FEWEST, Drift
from .power import Clock, Power
from .quantiles import PERCENTS, needed
from .results import Picture, Results, Spread

UNKNOWN = "not known"
NOT_MEASURED = "not measured"

Cells = Sequence[str]


def render(results: Results) -> str:
    """The whole report; the first table is what tables of several devices are put together from."""
    sections = [
        _heading(results),
        table(["device", "start-up", "per image", f"{_painted(results)}-image peak memory"], [_row(results)]),
        _notes(results),
        "## Time",
        _start_up(results),
        _times(results),
        "## Memory and disk",
        _memory(results),
        "## Machine",
        _machine(results),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def table(head: Cells, rows: Sequence[Cells]) -> str:
    """A Markdown table of aligned columns; all but the first are numbers, to the right."""
    widths = [max(len(line[column]) for line in [head, *rows]) for column in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(f"| {' | '.join(_padded(line, widths))} |" for line in [head, rule, *rows])


def _padded(line: Cells, widths: Sequence[int]) -> list[str]:
    first, *others = (cell.replace("|", "\\|") for cell in line)
    return [first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))]


# ---------------------------------------------------------------- what comes first


def _heading(results: Results) -> str:
    return f"# edgepress bench: {results.artifact}"


def _row(results: Results) -> Cells:
    times = results.summary.times
    return [
        f"{device(results)}; {power(results.conditions.power)}",
        seconds(results.summary.start_up),
        _percentile(times["image"], 50) if times else NOT_MEASURED,
        megabytes(results.memory.peak),
    ]


def _painted(results: Results) -> int:
    return len(results.pictures) - 1


def _notes(results: Results) -> str:
    """What the table does not say of itself."""
    height, width = results.settings.size
    held = "all graphs in memory" if results.settings.keep else "one graph in memory at a time"
    tiled = f", decoded in tiles of {results.settings.tile}" if results.settings.tile else ""
    steps = f"{results.settings.steps} step{'s' if results.settings.steps > 1 else ''}"
    count = results.settings.images
    notes = [
        f"Pictures of {height}x{width} in {steps}{tiled}, {held}; {results.engine}.",
        f"Per image: the median of {_painted(results)}, after a first one.",
    ]
    if results.simulated:
        notes.insert(0, "**Simulated: neither these times nor this memory say anything of a board.**")
    if results.partial:
        notes.insert(0, f"**Partial: {_painted(results)} of {count} images.** Why: {results.partial.rstrip('.')}.")
    return " ".join([*notes, *results.cut])


# ---------------------------------------------------------------- details


def _start_up(results: Results) -> str:
    found = results.summary
    rows = [
        ["from the process's start until it can read a prompt", seconds(found.ready)],
        ["loading the graphs", seconds(found.loading) if results.settings.keep else "again for each image"],
        ["start-up: both", seconds(found.start_up)],
        ["first image, after that", seconds(found.first)],
        ["read from the disk until then", f"{_read(results)} of {megabytes(_disk(results))}"],
    ]
    return table(["start-up", ""], rows)


def _read(results: Results) -> str:
    return UNKNOWN if results.read is None else megabytes(results.read)


def _times(results: Results) -> str:
    head = ["time", "n", *(f"p{percent}" for percent in PERCENTS), "longest", "mean"]
    rows = [_spread(name, found) for name, found in results.summary.times.items()]
    if not rows:
        return ""
    return table(head, rows) + f"\n\n{_drift(results.summary.time_drift, results, 1000, 'ms', 'Time per image')}"


def _spread(name: str, found: Spread) -> Cells:
    known = [_percentile(found, percent) for percent in PERCENTS]
    return [name, str(found.n), *known, seconds(found.longest), seconds(found.mean)]


def _percentile(found: Spread, percent: int) -> str:
    value = found.percentiles[f"p{percent}"]
    return f"n < {needed(percent)}" if value is None else seconds(value)


def _memory(results: Results) -> str:
    pictures = results.pictures
    rows = [
        ["most that the process held", megabytes(results.memory.peak)],
        ["most of its own", megabytes(results.memory.own)],
        ["most of files that it maps", megabytes(results.memory.mapped)],
        ["held after the first image", megabytes(pictures[0].rss)],
        *_last(pictures),
        ["artifact on the disk", megabytes(_disk(results))],
    ]
    return (
        table(["memory and disk", ""], rows)
        + "\n\n"
        + _drift(results.summary.memory_drift, results, 1e-6, "MB", "Memory")
    )


def _last(pictures: Sequence[Picture]) -> list[Cells]:
    return [[f"held after image {len(pictures) - 1}", megabytes(pictures[-1].rss)]] if len(pictures) > 1 else []


def _drift(found: Drift | None, results: Results, factor: float, unit: str, what: str) -> str:
    """A slope in a unit per 100 images, and whether it is one."""
    if found is None:
        return f"{what}: no drift can be told from {_painted(results)} images; it takes {FEWEST}."
    slope, low, high = (f"{factor * value:+.3f}" for value in (found.slope, found.low, found.high))
    verdict = ("rises" if found.low > 0 else "falls") if found.seen else "no drift seen"
    return f"{what}: {verdict}; {slope} {unit} per 100 images, 95 % [{low}, {high}] (Theil and Sen, n = {found.n})."


def _machine(results: Results) -> str:
    machine, conditions = results.machine, results.conditions
    virtual = {None: UNKNOWN, True: "yes", False: "no"}[machine.virtual]
    rows = [
        ["model", machine.model or UNKNOWN],
        ["processor", f"{machine.cpu or UNKNOWN} ({machine.architecture})"],
        ["virtual machine", virtual],
        ["cores that it may use", str(machine.cores)],
        ["memory, free of it at the beginning", f"{_maybe(machine.memory)}, {_maybe(conditions.available)}"],
        ["swap", _maybe(machine.swap)],
        ["system", machine.system or UNKNOWN],
        *([["release", machine.release]] if machine.release else []),
        ["kernel", machine.kernel],
        ["power mode (nvpmodel)", conditions.power.mode or UNKNOWN],
        ["clocks (cpufreq)", _clocks(conditions.power)],
        ["temperature at the beginning, at most", _warmth(results)],
        ["throttling before, after", _throttling(results)],
        ["Python, edgepress", f"{machine.python}, {results.edgepress}"],
        ["runs graphs", results.engine],
        ["begun", results.begun],
    ]
    return table(["machine", ""], rows)


def _clocks(found: Power) -> str:
    return "; ".join(f"cores {clock.cores or UNKNOWN}: {_clock(clock)}" for clock in found.clocks) or UNKNOWN


def _warmth(results: Results) -> str:
    begin, most = results.conditions.temperatures, results.conditions.hottest
    return "; ".join(f"{zone} {begin[zone]:.1f}, {most[zone]:.1f} °C" for zone in begin if zone in most) or UNKNOWN


def _throttling(results: Results) -> str:
    found = results.conditions.throttling
    return "; ".join(f"{source}: {before}, then {after}" for source, (before, after) in found.items()) or UNKNOWN


# ---------------------------------------------------------------- words


def device(results: Results) -> str:
    """What the machine is called, its cores and its memory."""
    machine = results.machine
    name = machine.model or machine.cpu or f"a machine {UNKNOWN} ({machine.architecture})"
    virtual = " (virtual)" if machine.virtual else ""
    simulated = "simulator on " if results.simulated else ""
    return f"{simulated}{name}{virtual}, {machine.cores} cores, {_maybe(machine.memory)}"


def power(found: Power) -> str:
    """The power mode in a few words."""
    clocks = sorted({_clock(clock) for clock in found.clocks})
    said = [f"nvpmodel {found.mode}"] if found.mode else []
    return "; ".join([*said, *clocks]) or f"power mode {UNKNOWN}"


def seconds(value: float) -> str:
    """Three digits; below a tenth in milliseconds."""
    if value < 0.1:
        return f"{1000 * value:#.3g} ms"
    return f"{value:.0f} s" if value >= 100 else f"{value:#.3g} s"


def megabytes(value: int) -> str:
    return f"{value / 1e6:,.1f} MB"


def _maybe(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value / 1e9:.1f} GB"


def _clock(clock: Clock) -> str:
    least, most = (UNKNOWN if hertz is None else f"{hertz / 1e9:.2f} GHz" for hertz in (clock.least, clock.most))
    return f"{clock.governor or UNKNOWN}, {least} to {most}"


def _disk(results: Results) -> int:
    return sum(results.disk.values())
