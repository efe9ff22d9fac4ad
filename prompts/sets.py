"""Prompt sets by name or path.

A set is one of:

    NAME          a shipped set, such as text-en
    FILE.jsonl    edgepress's own format (docs/prompts.md), GenEval or LongText-Bench
    FILE.tsv      PartiPrompts
    FILE.json     CVTG-2K
    FILE.csv      DPG-Bench as one file
    FOLDER        DPG-Bench as one .txt file per prompt
"""

from __future__ import annotations

import difflib
from collections import Counter
from pathlib import Path

from ..common.errors import UserError
from .benchmark_formats import read_prompts
from .prompt import Prompt

PROMPTS_DIR = Path(__file__).parents[1] / "recipes" / "prompts"


def prompt_set_names() -> list[str]:
    """The names of the sets that are shipped, sorted."""
    return sorted(path.stem for path in PROMPTS_DIR.glob("*.jsonl"))


def load_prompt_set(name_or_path: str | Path) -> list[Prompt]:
    """Loads the prompts of a set, in order.

    Args:
        name_or_path: The name of a shipped set, or the path of a file or folder. A shipped set takes precedence.

    Raises:
        UserError: There is no such set, its format is unknown, it has no prompts, or an entry is invalid.
    """
    path = find_prompt_set(name_or_path)
    prompts = read_prompts(path)
    if not prompts:
        raise UserError(f"{path} has no prompts. See docs/prompts.md for the formats.")
    (most_frequent_id, count), *_ = Counter(prompt.id for prompt in prompts).most_common(1)
    if count > 1:
        raise UserError(f"{path}: Duplicate prompt id {most_frequent_id!r}.")
    return prompts


def find_prompt_set(name_or_path: str | Path) -> Path:
    """The file or folder of a set.

    Args:
        name_or_path: As in `load_prompt_set`.

    Raises:
        UserError: There is no such set.
    """
    name, names = str(name_or_path), prompt_set_names()
    if name in names:
        return PROMPTS_DIR / f"{name}.jsonl"
    if Path(name_or_path).exists():
        return Path(name_or_path)
    matches = difflib.get_close_matches(name, names, 1)
    hint = f"did you mean {matches[0]!r}?" if matches else f"shipped sets: {', '.join(names)}."
    raise UserError(f"There is no prompt set or file {name!r}; {hint}")


def resolve_prompt_set(folder: Path, name_or_path: str, purpose: str) -> Path:
    """What a recipe's key `prompts` means for a pipeline.

    Args:
        folder: The pipeline's folder.
        name_or_path: A set's name or path, or `auto`: the set in the pipeline's folder `prompts`, or else the shipped
            set for the purpose.
        purpose: `calibration` or `evaluation`.

    Returns:
        A name or path for `load_prompt_set`.
    """
    if name_or_path != "auto":
        return Path(name_or_path)
    bundled = folder / "prompts" / f"{purpose}.jsonl"
    return bundled if bundled.exists() else PROMPTS_DIR / bundled.name
