"""The two halves of the demo's evaluation prompts, split by a hash of their ids, once and for all.

Whoever chooses a method, a step or a constant measures on the choosing half. The final half is for tables of results
alone: what was chosen on the same prompts that judge it looks better than it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ...pipelines.hub import DEMO_PIPELINE
from ...prompts.prompt import Prompt, save_prompts
from ...prompts.sets import load_prompt_set, resolve_prompt_set

Half = Literal["choosing", "final"]
HALVES: tuple[Half, Half] = ("choosing", "final")


def find_half(prompt_id: str) -> Half:
    """Returns the half of a prompt: the lowest bit of the first byte of its id's SHA-256 is 0, or 1."""
    return HALVES[hashlib.sha256(prompt_id.encode()).digest()[0] & 1]


def load_half(half: Half) -> list[Prompt]:
    """Returns the demo's evaluation prompts of a half, in the order of the set."""
    prompts: Sequence[Prompt] = load_prompt_set(resolve_prompt_set(DEMO_PIPELINE, "auto", "evaluation"))
    return [prompt for prompt in prompts if find_half(prompt.id) == half]


def write_half(half: Half, folder: Path) -> Path:
    """Writes the demo's evaluation prompts of a half into a folder, and returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{half}.jsonl"
    save_prompts(load_half(half), file)
    return file
