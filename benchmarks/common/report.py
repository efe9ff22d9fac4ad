"""docs/benchmarks.md: one section a benchmark, rewritten in place, with its machine; and what stands in its tables."""

from __future__ import annotations

import datetime
import os
import platform
import re
from pathlib import Path

import click

from ... import __version__
from ...evaluate.results.schema import Results, ScoreGroup
from ...evaluate.stats.bootstrap import MeanCI, bootstrap_mean
from ...storage.manifest import library_versions

FILE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
CANDIDATE_NAME = "pressed"  # what benchmarks call the one candidate of an evaluation
TITLE = "# Benchmarks\n\nEvery table is written by the command it names.\n"


def write_section(name: str, command: str, body: str) -> None:
    """Replaces the section between the marks of `name`, or adds it at the end."""
    text = FILE.read_text("utf-8") if FILE.exists() else TITLE
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    section = f"{begin}\n{body.strip()}\n\n*`{command}`, {describe_machine()}.*\n{end}"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    replaced = pattern.sub(lambda _: section, text) if pattern.search(text) else f"{text.rstrip()}\n\n{section}\n"
    FILE.write_text(replaced, "utf-8")


def describe_machine() -> str:
    """The machine, the versions and the day, in a line."""
    libraries = library_versions()
    chosen = ", ".join(f"{name} {libraries[name]}" for name in ("torch", "diffusers", "transformers"))
    cpu = f"{len(os.sched_getaffinity(0))} cores of {_read_cpu_name()}"
    return f"{cpu}; edgepress {__version__}, {chosen}; {datetime.date.today().isoformat()}"


def _read_cpu_name() -> str:
    match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text("utf-8"))
    return match[1] if match else platform.processor()


def render_table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def get_overall_scores(results: Results) -> ScoreGroup:
    """What the variant's pictures scored, all of them."""
    return results.variants[CANDIDATE_NAME].groups[0]


def compare_paired_psnr(better: Results, base: Results) -> MeanCI:
    """The paired difference in PSNR over all prompts, in dB; pictures that are identical to the reference have none."""
    rows = zip(better.samples, base.samples, strict=True)
    values = [
        (a.variants[CANDIDATE_NAME].values["psnr"], b.variants[CANDIDATE_NAME].values["psnr"], a.prompt.id)
        for a, b in rows
    ]
    differences = [(a - b, prompt) for a, b, prompt in values if a is not None and b is not None]
    mean = bootstrap_mean([difference for difference, _ in differences], [prompt for _, prompt in differences])
    if mean is None:
        raise click.ClickException("no pair of pictures differed: nothing was compared")
    return mean


def format_mean(mean: MeanCI, factor: float = 1.0, digits: int = 2) -> str:
    """A mean and its interval, if it has one."""
    if mean.low is None or mean.high is None:
        return f"{factor * mean.mean:.{digits}f}"
    low, high = factor * mean.low, factor * mean.high
    return f"{factor * mean.mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
