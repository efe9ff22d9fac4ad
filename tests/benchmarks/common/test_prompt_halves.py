"""Which half an evaluation prompt is in never changes: choices and results rest on it."""

from __future__ import annotations

from pathlib import Path

from edgepress.benchmarks.common.prompt_halves import find_half, load_half, write_half
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.prompts.sets import load_prompt_set


def test_the_halves_are_those_of_the_first_release() -> None:
    """By `printf %s evaluation-000 | sha256sum` and so on: hashes that begin with an even byte are for choosing."""
    first_bytes = {"000": 0x7C, "001": 0x6E, "002": 0x30, "003": 0x87, "004": 0x77}
    for number, byte in first_bytes.items():
        assert find_half(f"evaluation-{number}") == ("final" if byte % 2 else "choosing")
    assert (len(load_half("choosing")), len(load_half("final"))) == (155, 150)


def test_together_they_are_the_whole_set() -> None:
    ids = [prompt.id for prompt in (*load_half("choosing"), *load_half("final"))]
    prompts = load_prompt_set(DEMO_PIPELINE / "prompts" / "evaluation.jsonl")
    assert sorted(ids) == sorted(prompt.id for prompt in prompts)


def test_a_half_is_written_as_a_prompt_set(tmp_path: Path) -> None:
    assert load_prompt_set(write_half("final", tmp_path / "new")) == load_half("final")
