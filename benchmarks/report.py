"""docs/benchmarks.md: one section a benchmark, rewritten in place, with its machine; and what stands in its tables."""

from __future__ import annotations

import datetime
import os
import platform
import re
from pathlib import Path

import click

from .. import __version__
from ..artifact import versions
from ..evaluate.bootstrap import Mean, mean_of
from ..evaluate.results import Group, Results

FILE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
VARIANT = "pressed"  # what benchmarks call the one candidate of an evaluation
TITLE = "# Benchmarks\n\nEvery table is written by the command it names.\n"


def write_section(name: str, command: str, body: str) -> None:
    """Replaces the section between the marks of `name`, or adds it at the end."""
    text = FILE.read_text("utf-8") if FILE.exists() else TITLE
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    section = f"{begin}\n{body.strip()}\n\n*`{command}`, {machine()}.*\n{end}"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    replaced = pattern.sub(lambda _: section, text) if pattern.search(text) else f"{text.rstrip()}\n\n{section}\n"
    FILE.write_text(replaced, "utf-8")


def machine() -> str:
    """The machine, the versions and the day, in a line."""
    libraries = versions()
    chosen = ", ".join(f"{name} {libraries[name]}" for name in ("torch", "diffusers", "transformers"))
    cpu = f"{len(os.sched_getaffinity(0))} cores of {_cpu_name()}"
    return f"{cpu}; edgepress {__version__}, {chosen}; {datetime.date.today().isoformat()}"


def _cpu_name() -> str:
    found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text("utf-8"))
    return found[1] if found else platform.processor()


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def scores_of(results: Results) -> Group:
    """What the variant's pictures scored, all of them."""
    return results.variants[VARIANT].groups[0]


def paired(better: Results, base: Results) -> Mean:
    """The paired difference in PSNR over all prompts, in dB; pictures that are identical to the reference have none."""
    rows = zip(better.rows, base.rows, strict=True)
    values = [(a.variants[VARIANT].values["psnr"], b.variants[VARIANT].values["psnr"], a.prompt.id) for a, b in rows]
    known = [(a - b, prompt) for a, b, prompt in values if a is not None and b is not None]
    found = mean_of([difference for difference, _ in known], [prompt for _, prompt in known])
    if found is None:
        raise click.ClickException("no pair of pictures differed: nothing was compared")
    return found


def shown(mean: Mean, factor: float = 1.0, digits: int = 2) -> str:
    """A mean and its interval, if it has one."""
    if mean.low is None or mean.high is None:
        return f"{factor * mean.mean:.{digits}f}"
    low, high = factor * mean.low, factor * mean.high
    return f"{factor * mean.mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
