"""bench.json: every number of a run, on which machine and how set; all that is shown comes from this file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, FiniteFloat

from .drift import Drift, drift
from .machine import Machine
from .power import Power
from .quantiles import PERCENTS, percentile

SCHEMA_VERSION = 1
NAME = "bench.json"


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# ---------------------------------------------------------------- what was asked for, and where it ran


class Settings(Part):
    """What was asked for.

    size: height and width. tile: the side that pictures are decoded in, if in tiles. seed: of the first picture; each
    later one has the next. keep: whether graphs stay in memory between uses. prompts: the set's name, and its hash.
    """

    images: int
    size: tuple[int, int]
    steps: int
    tile: int | None
    seed: int
    keep: bool
    prompts: str
    prompts_sha256: str


class Conditions(Part):
    """The machine's settings at the beginning, and what was seen of heat: °C by zone, at the beginning and at most.

    throttling: what tells or counts that clocks were lowered, before and after, by where it is read. available: bytes
    that processes could have had at the beginning. Empty or None: not known.
    """

    power: Power
    temperatures: dict[str, FiniteFloat]
    hottest: dict[str, FiniteFloat]
    throttling: dict[str, tuple[str, str]]
    available: int | None


# ---------------------------------------------------------------- what was measured


class Picture(Part):
    """One picture: its prompt's id and seed; seconds in all and of its parts, which do not hold the loading of graphs.

    rss: bytes that the process held when it was finished. peak: the most that it had held by then.
    """

    prompt: str
    seed: int
    seconds: FiniteFloat
    loading: FiniteFloat
    text_encoder: FiniteFloat
    steps: list[FiniteFloat]
    decoder: FiniteFloat
    rss: int
    peak: int


class Memory(Part):
    """The most that the process held, in bytes: in all, and, as looked every tenth of a second, of its own and of files
    that it maps, which the system may take back."""

    peak: int
    own: int
    mapped: int


class Spread(Part):
    """n seconds: their mean, percentiles where they are enough, and the longest."""

    n: int
    mean: FiniteFloat
    percentiles: dict[str, FiniteFloat | None]
    longest: FiniteFloat


class Summary(Part):
    """What the pictures come to; seconds.

    ready: from the process's start until it can read a prompt. loading: of all graphs, if they stay. start_up: both.
    first: the first picture, without that loading. times: of the later pictures, and of their parts. memory_drift: in
    bytes, and time_drift: in seconds, per 100 later pictures.
    """

    ready: FiniteFloat
    loading: FiniteFloat
    start_up: FiniteFloat
    first: FiniteFloat
    times: dict[str, Spread]
    memory_drift: Drift | None
    time_drift: Drift | None


class Results(Part):
    """A run. begun: when, UTC. engine: what ran the graphs; simulated: it is a simulator of the device's, of whose
    memory nothing is seen. partial: why there are fewer pictures than were asked for.

    read: bytes that came from the disk until the first picture was there, if the system tells. disk: bytes of the
    artifact by file. pictures: the first one, and those that were asked for. cut: what prompts were too long for.
    """

    schema_version: int = SCHEMA_VERSION
    edgepress: str
    begun: str
    artifact: str
    engine: str
    simulated: bool
    partial: str | None
    machine: Machine
    conditions: Conditions
    settings: Settings
    summary: Summary
    memory: Memory
    read: int | None
    disk: dict[str, int]
    cut: list[str]
    pictures: list[Picture]


def summarized(ready: float, pictures: Sequence[Picture], keep: bool) -> Summary:
    """Of a first picture and later ones."""
    first, *later = pictures
    loading = first.loading if keep else 0.0
    return Summary(
        ready=ready,
        loading=loading,
        start_up=ready + loading,
        first=first.seconds - loading,
        times=_times(later),
        memory_drift=drift([picture.rss for picture in later]),
        time_drift=drift([picture.seconds for picture in later]),
    )


def spread(seconds: Sequence[float]) -> Spread:
    """Of one value or more."""
    return Spread(
        n=len(seconds),
        mean=sum(seconds) / len(seconds),
        percentiles={f"p{percent}": percentile(seconds, percent) for percent in PERCENTS},
        longest=max(seconds),
    )


def save(results: Results, path: Path) -> None:
    """Writes the file; it appears whole or not at all."""
    replace(path, json.dumps(results.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def replace(path: Path, text: str) -> None:
    """Writes a text under another name and renames it."""
    new = path.with_name(path.name + ".new")
    new.write_text(text, "utf-8")
    new.replace(path)


def _times(pictures: Sequence[Picture]) -> dict[str, Spread]:
    """By part; graphs that are loaded again for each picture are one."""
    parts = {
        "image": [picture.seconds for picture in pictures],
        "text encoder": [picture.text_encoder for picture in pictures],
        "step": [seconds for picture in pictures for seconds in picture.steps],
        "decoder": [picture.decoder for picture in pictures],
        "loading graphs": [picture.loading for picture in pictures if picture.loading],
    }
    return {name: spread(seconds) for name, seconds in parts.items() if seconds}
