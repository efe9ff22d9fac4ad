"""Results of several candidates with sizes and costs, as an evaluation would have written them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edgepress.evaluate.results.folder_identity import FolderIdentity
from edgepress.evaluate.results.schema import GenerationCost, PairResult, Results, SampleResult, SystemInfo
from edgepress.evaluate.stats.bootstrap import MeanCI
from helpers.result_rows import make_identity, make_image, make_pair, make_prompt, make_results

NUM_PROMPTS = 12
GIB = 2**30


class Candidate(NamedTuple):
    """A candidate: the PSNR of each prompt (None: identical), its size in bytes, its peak memory, its text accuracy."""

    psnr: Sequence[float | None]
    size: int | None
    memory: int | None = None
    text: float = 1.0
    own_noise: str | None = None


def spread(mean: float) -> list[float]:
    """Values around a mean, alike for every candidate, so that paired differences are certain."""
    return [mean + (number % 3 - 1) for number in range(NUM_PROMPTS)]


def make_candidate_results(candidates: Mapping[str, Candidate]) -> Results:
    """The results of candidates on the same prompts."""
    samples = [
        SampleResult(
            prompt=make_prompt(f"p{number}"),
            seed=0,
            ground_truth=None,
            reference=make_image(1),
            variants={name: _make_pair(candidate, number) for name, candidate in candidates.items()},
        )
        for number in range(NUM_PROMPTS)
    ]
    identity = make_identity(variants={name: _make_system(name, candidate) for name, candidate in candidates.items()})
    costs = {name: _make_cost(candidate.memory) for name, candidate in candidates.items() if candidate.memory}
    return make_results(samples).model_copy(update={"identity": identity, "costs": costs})


def _make_pair(candidate: Candidate, number: int) -> PairResult:
    pair = make_pair(candidate.psnr[number], candidate.text)
    return pair.model_copy(update={"identical": False, "values": {}}) if candidate.own_noise else pair


def _make_system(name: str, candidate: Candidate) -> SystemInfo:
    return SystemInfo(
        kind="server" if candidate.own_noise else "diffusers",
        folder=FolderIdentity(path=f"files/{name}", sha256="1" * 64, files=1, bytes=1),
        dtype="float32",
        weight_bytes=candidate.size,
        bits_per_weight=candidate.size and candidate.size / 10**6,
        own_noise=candidate.own_noise,
    )


def _make_cost(memory: int) -> GenerationCost:
    seconds = MeanCI(mean=1.5, low=1.25, high=1.75, count=8)
    return GenerationCost(seconds=seconds, batch_size=8, peak_memory=memory)
