"""Prompt sets by name or path: our own, and published ones in the formats that their authors publish.

a name         a set of recipes/prompts/, such as text-en
FILE.jsonl     ours (docs/prompts.md), GenEval's (evaluation_metadata) or LongText-Bench's (text_prompts)
FILE.tsv       PartiPrompts
FILE.json      CVTG-2K
FILE.csv       DPG-Bench in one file
FOLDER         DPG-Bench: one .txt a prompt
"""

from __future__ import annotations

import difflib
from pathlib import Path

from ..common.errors import UserError
from ..pipelines.hub import PACKAGE_ROOT
from .benchmark_formats import _READERS, _read_dpg_folder, _read_json_lines
from .prompt import Prompt

PROMPTS_DIR = PACKAGE_ROOT / "recipes" / "prompts"


def prompt_set_names() -> list[str]:
    """The sets that are shipped."""
    return sorted(path.stem for path in PROMPTS_DIR.glob("*.jsonl"))


def load_prompt_set(name_or_path: str | Path) -> list[Prompt]:
    """The prompts of a set, in its order. The name of a shipped set wins over a file of that name here.

    Raises:
        UserError: no such set or file, a format that is not known, or an entry that is no prompt.
    """
    path = find_prompt_set(name_or_path)
    if path.is_dir():
        return _require_nonempty(list(_read_dpg_folder(path)), path)
    reader = _READERS.get(path.suffix, _read_json_lines)
    return _require_nonempty(reader(path), path)


def find_prompt_set(name_or_path: str | Path) -> Path:
    """The file or folder of a set.

    Raises:
        UserError: there is none.
    """
    shipped = PROMPTS_DIR / f"{name_or_path}.jsonl"
    if str(name_or_path) in prompt_set_names():
        return shipped
    path = Path(name_or_path)
    if path.exists():
        return path
    near = difflib.get_close_matches(str(name_or_path), prompt_set_names(), 1)
    hint = (
        f"did you mean {near[0]!r}?" if near else f"the sets that come with edgepress: {', '.join(prompt_set_names())}."
    )
    raise UserError(f"There is no prompt set or file {str(name_or_path)!r}; {hint}")


# ---------------------------------------------------------------- JSON lines: ours, GenEval, LongText-Bench


# ---------------------------------------------------------------- tables: PartiPrompts, DPG-Bench


# ---------------------------------------------------------------- CVTG-2K, DPG-Bench


# ---------------------------------------------------------------- what all share


def _require_nonempty(prompts: list[Prompt], path: Path) -> list[Prompt]:
    if not prompts:
        raise UserError(f"{path} holds no prompt; see docs/prompts.md for the formats.")
    ids = [prompt.id for prompt in prompts]
    duplicate = next((one for one in ids if ids.count(one) > 1), None) if len(set(ids)) < len(ids) else None
    if duplicate:
        raise UserError(f"{path}: the id {duplicate!r} stands there twice; ids must differ.")
    return prompts


def resolve_prompt_set(folder: Path, name_or_path: str, purpose: str) -> Path:
    """The set for `calibration` or `evaluation`: by name or path, or with `own` the pipeline's or the shipped one."""
    if name_or_path != "auto":
        return Path(name_or_path)
    bundled = folder / "prompts" / f"{purpose}.jsonl"
    return bundled if bundled.exists() else PACKAGE_ROOT / "recipes" / "prompts" / f"{purpose}.jsonl"
