"""Reads the prompts of a file or folder, in whatever of the known formats they are, and logs what was taken.

The rules, which docs/prompts.md states for users:

- Text is UTF-8, or UTF-16 or UTF-32 with a byte order mark, which is removed. NUL is refused. Other control characters
  stay in texts, and are refused in ids. Line ends are those of any system; blank lines and empty rows are skipped.
- Published benchmarks are recognized by their keys. A JSON object with `prompt` and one of `language`, `lines` and
  `categories` is in edgepress's own format, in which unknown keys are mistakes. Of other files, the text, the id and
  the language are taken, by common names, and blanks around a text are removed.
- An id that is missing is made from the text. One that is empty, a path, or there twice is refused.
- A language that is missing is guessed from the script.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..common.errors import UserError
from ..common.name_list import list_names
from ..common.suggest import suggest_name
from ..common.validation import explain_value
from ..storage.recognition import PathKind, recognize_path, reject_path
from . import benchmark_formats
from .benchmark_formats import LocatedPrompts, find_benchmark
from .entries import EXTRA_CELLS, FORMATS, Entry, EntryList, read_entries
from .fields import parse_categories, parse_id, parse_language, parse_lines, parse_text, require_id, require_text
from .prompt import Prompt, detect_language

OWN_KEYS = tuple(Prompt.model_fields)
# Own keys that tell edgepress's format from those of others.
TELLING_KEYS = {*OWN_KEYS} - {"id", "prompt", "negative_prompt", "guidance", "image"}
IMAGE_KEYS = ("image", "strength")  # for images that start from another one
PARSERS: dict[str, Callable[[Entry, str], object]] = {
    "id": parse_id,
    "language": parse_language,
    "lines": parse_lines,
    "negative_prompt": parse_text,
    "image": require_text,
    "categories": parse_categories,
}
TEXT_KEYS = ("prompt", "text", "caption", "prompt_en", "prompt_zh")  # the first that is there is taken
ID_KEYS = ("id", "prompt_id", "item_id")
KNOWN_COLUMNS = tuple({*OWN_KEYS, *TEXT_KEYS, *ID_KEYS, *benchmark_formats.COLUMNS} - {*IMAGE_KEYS})
PROMPT_FOLDERS = (PathKind.FOLDER, PathKind.EMPTY, PathKind.IMAGES)  # others have texts that are no prompts
ID_DIGITS = 12  # hexadecimal, of the SHA-256 of a text

_logger = logging.getLogger("edgepress")


@dataclass(frozen=True)
class _Columns:
    """The keys that the parts of a prompt are taken from; None: there is no such key.

    Attributes:
        text: The key of the prompt itself.
        id: The key of the id.
        language: The key of the language.
        lines: The key of the text to show.
    """

    text: str
    id: str | None
    language: str | None
    lines: str | None


def load_prompts(path: Path, allow_images: bool = False) -> list[Prompt]:
    """Loads the prompts of a file or folder, in order.

    What was taken is logged: as a warning if something was assumed or left out.

    Args:
        path: The file or folder.
        allow_images: Whether prompts may name an image to start from, whose path is returned with that folder.

    Raises:
        UserError: The file cannot be read or has no prompts, an entry is invalid, or an id is not unique.
    """
    if path.is_dir() and recognize_path(path) not in PROMPT_FOLDERS:
        raise reject_path(path, f"Give a file that ends in {FORMATS}")
    entries = read_entries(path, KNOWN_COLUMNS)
    if not entries.entries:
        advice = f"Put .txt files in it, or give a file that ends in {FORMATS}" if path.is_dir() else "Write one in it"
        raise UserError(f"{path} has no prompts. {advice}.")
    keys = list(dict.fromkeys(key for entry in entries.entries for key in entry.fields))
    convert = find_benchmark(entries)
    if convert:
        prompts = _require_unique(convert(entries))
        _logger.info("%s: %d prompts of a published benchmark.", path, len(prompts))
    elif entries.unit == "key" and _is_own_format({*keys}, allow_images):
        prompts = _require_unique(_locate_images(_convert_own(entries), path, allow_images))
        _log_selection(entries, "prompt", prompts, ())
    else:
        columns = _find_columns(entries, keys)
        prompts = _require_unique(_convert(entries, columns))
        used = (columns.text, columns.id, columns.language, columns.lines)
        unused = [*(key for key in keys if key not in used), *entries.other_columns]
        _log_selection(entries, columns.text, prompts, unused)
    return prompts


def _is_own_format(keys: set[str], allow_images: bool) -> bool:
    """Whether objects are in edgepress's own format. Data sets of others have images too, for another purpose."""
    has_images = allow_images and "image" in keys and keys <= {*OWN_KEYS}
    return "prompt" in keys and (has_images or not TELLING_KEYS.isdisjoint(keys))


def _find_columns(entries: EntryList, keys: Sequence[str]) -> _Columns:
    """Finds the keys by their names, in capitals or not.

    Raises:
        UserError: No key is a known name of a prompt.
    """
    by_name = {key.strip().lower(): key for key in reversed(keys)}

    def find(*names: str) -> str | None:
        return next((by_name[name] for name in names if name in by_name), None)

    text = find(*TEXT_KEYS)
    if text is None:
        unit = "column" if entries.unit == "column" else "key"
        nearest = difflib.get_close_matches("prompt", by_name, 1)
        named = list_names(repr(key) for key in keys if key != EXTRA_CELLS)
        meant = f"did you mean {by_name[nearest[0]]!r}?" if nearest else f"there are {named or 'none'}."
        raise UserError(
            f"{entries.entries[0].where}: There is no {unit} 'prompt'; {meant} Name the {unit} of the texts 'prompt'; "
            f"{', '.join(TEXT_KEYS[1:])} are known as well."
        )
    return _Columns(text, find(*ID_KEYS), find("language"), find("lines") if entries.unit == "column" else None)


# ---------------------------------------------------------------- prompts


def _convert_own(entries: EntryList) -> LocatedPrompts:
    """Edgepress's own format, in which unknown keys are mistakes, and texts are taken exactly as they are."""
    ids = _IdMaker()
    for entry in entries.entries:
        unknown = next((key for key in entry.fields if key not in OWN_KEYS), None)
        if unknown is not None:
            raise UserError(f"{entry.where}: Unknown key {unknown!r}; {suggest_name(unknown, OWN_KEYS)}")
        text = parse_text(entry, "prompt")
        new_id: dict[str, Any] = {"id": ids.make(text)} if "id" not in entry.fields else {}
        guessed = {"language": detect_language(text)} if "language" not in entry.fields else {}
        parsed = {key: parse(entry, key) for key, parse in PARSERS.items() if key in entry.fields}
        try:
            yield entry.where, Prompt.model_validate(entry.fields | new_id | guessed | parsed)
        except ValidationError as error:
            raise UserError(f"{entry.where}: {explain_value(error.errors()[0])}. See docs/prompts.md.") from error


def _locate_images(prompts: LocatedPrompts, path: Path, allow_images: bool) -> LocatedPrompts:
    """The prompts with the paths of their images.

    Raises:
        UserError: A prompt has an image where none is read, or a strength without one.
    """
    for where, prompt in prompts:
        key = next((key for key in IMAGE_KEYS if getattr(prompt, key) is not None), None)
        if key and not allow_images:
            raise UserError(f"{where}: {key} has an effect in 'edgepress generate --prompts' only. Remove it.")
        if prompt.image is not None:
            prompt = prompt.model_copy(update={"image": str(path.parent / prompt.image)})
        yield where, prompt


def _convert(entries: EntryList, columns: _Columns) -> LocatedPrompts:
    """Files of anyone, of which only some columns are taken."""
    ids = _IdMaker()
    for entry in entries.entries:
        if entries.unit == "column":
            entry = _strip_cells(entry, (columns.id, columns.language))
        if EXTRA_CELLS in entry.fields:
            raise UserError(
                f"{entry.where}: The row has more cells than the header. Quote texts that contain a delimiter."
            )
        text = parse_text(entry, columns.text).strip()
        text = _unquote(text) if entries.keeps_quotes else text
        if not text:
            raise UserError(f"{entry.where}: The {columns.text} is empty. Write a prompt, or remove the entry.")
        language = columns.language if columns.language and entry.fields.get(columns.language) else None
        yield (
            entry.where,
            Prompt(
                id=parse_id(entry, columns.id) if columns.id in entry.fields else ids.make(text),
                prompt=text,
                language=parse_language(entry, language) if language else detect_language(text),
                lines=_parse_line_cell(entry, columns.lines) if columns.lines else (),
            ),
        )


def _strip_cells(entry: Entry, keys: Iterable[str | None]) -> Entry:
    """The entry without the spaces that people put around the delimiters of a table."""
    cells = {key: entry.fields[key] for key in keys if key in entry.fields}
    return replace(entry, fields=entry.fields | {key: c.strip() for key, c in cells.items() if isinstance(c, str)})


def _unquote(cell: str) -> str:
    """The text of a cell that a program has quoted although it is separated by tabs: its quotes are doubled."""
    inner = cell[1:-1]
    is_quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"').strip() if is_quoted else cell


def _parse_line_cell(entry: Entry, key: str) -> tuple[str, ...]:
    """The lines of a cell of text, or of a list."""
    value: Any = entry.fields.get(key) or []
    lines = [line.strip() for line in value.splitlines()] if isinstance(value, str) else value
    return parse_lines(Entry(entry.where, {key: lines}), key)


# ---------------------------------------------------------------- ids


class _IdMaker:
    """Makes ids from texts. A text that is repeated gets a number as well."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def make(self, text: str) -> str:
        digest = hashlib.sha256(text.encode("utf-8")).hexdigest()[:ID_DIGITS]
        self._counts[digest] += 1
        return digest if self._counts[digest] == 1 else f"{digest}-{self._counts[digest]}"


def _require_unique(prompts: Iterable[tuple[str, Prompt]]) -> list[Prompt]:
    """Checks that ids can name files, and that no two are equal."""
    by_id: dict[str, tuple[str, Prompt]] = {}
    for where, prompt in prompts:
        require_id(prompt.id, where)
        if prompt.id in by_id:
            first = by_id[prompt.id][0]
            raise UserError(f"{where}: Duplicate prompt id {prompt.id!r}, which {first} has. Give each its own id.")
        by_id[prompt.id] = where, prompt
    return [prompt for _, prompt in by_id.values()]


# ---------------------------------------------------------------- what was taken


def _log_selection(entries: EntryList, text: str, prompts: Sequence[Prompt], unused: Sequence[str]) -> None:
    """Logs where prompts, ids and languages come from."""
    sources = {"line": "one per line", "text": "one per text", "key": f"key {text!r}", "column": f"column {text!r}"}
    lowered = [{key.strip().lower() for key in entry.fields} for entry in entries.entries]
    num_ids = sum(not names.isdisjoint(ID_KEYS) for names in lowered)
    guessed = [p.language for p, names in zip(prompts, lowered, strict=True) if "language" not in names]
    assumptions = []
    if num_ids < len(prompts):
        assumptions.append(f"ids made from the texts of {len(prompts) - num_ids}")
    if guessed:
        counts = ", ".join(f"{count} {name}" for name, count in sorted(Counter(guessed).items()))
        assumptions.append(f"languages guessed from the script ({counts})")
    if named := [key for key in unused if key.strip()]:
        assumptions.append(f"not used: {list_names(named)}")
    parts = [f"{len(prompts)} prompts, {sources[entries.unit]}", *assumptions]
    _logger.log(logging.WARNING if assumptions else logging.INFO, "%s: %s.", entries.path, "; ".join(parts))
