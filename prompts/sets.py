"""Prompt sets by name or path: the name of a shipped set, or a file or folder in a format that `reader` knows."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..common.errors import UserError
from ..common.file_names import require_local
from .prompt import Prompt
from .reader import load_prompts

PROMPTS_DIR = Path(__file__).parents[1] / "recipes" / "prompts"

_logger = logging.getLogger("edgepress")


def prompt_set_names() -> list[str]:
    """The names of the sets that are shipped, sorted."""
    return sorted(path.stem for path in PROMPTS_DIR.glob("*.jsonl"))


def load_prompt_set(name_or_path: str | Path, allow_images: bool = False) -> list[Prompt]:
    """Loads the prompts of a set, in order.

    Args:
        name_or_path: The name of a shipped set, or the path of a file or folder. A shipped set takes precedence.
        allow_images: Whether prompts may name an image to start from.

    Raises:
        UserError: There is no such set, its format is unknown, it has no prompts, or an entry is invalid.
    """
    return load_prompts(find_prompt_set(name_or_path), allow_images)


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
    with suppress(OSError):  # a name that is too long
        if Path(name_or_path).exists():
            return Path(name_or_path)
    matches = difflib.get_close_matches(name, names, 1)
    hint = (
        f"did you mean {matches[0]!r}?" if matches else f"give a file, or one of the shipped sets: {', '.join(names)}."
    )
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

    Raises:
        UserError: The name is empty, which would mean the current folder, or an address.
    """
    if not name_or_path.strip():
        raise UserError(f"The prompt set for the {purpose} has no name. Give a name, a file, or auto.")
    require_local(name_or_path)
    if name_or_path != "auto":
        return Path(name_or_path)
    bundled = folder / "prompts" / f"{purpose}.jsonl"
    return bundled if bundled.exists() else PROMPTS_DIR / bundled.name


def warn_if_fewer(prompts: Sequence[Prompt], count: int, prompt_set: str | Path, source: str) -> None:
    """Warns if a set has fewer prompts than are asked for; it is then used whole.

    Args:
        prompts: The prompts of the set.
        count: The number that is asked for.
        prompt_set: The set's name or path.
        source: The option or recipe key that asks for them.
    """
    if len(prompts) < count:
        _logger.warning(
            "%s asks for %d prompts, but %s has %d. All of them are used.", source, count, prompt_set, len(prompts)
        )
