"""Reads the entries of a file of prompts, whatever file it is: an entry is a mapping of keys or columns to values."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from ..common.errors import UserError, summarize_error
from ..common.regular_files import require_regular
from .text_file import read_text_file, split_lines

TEXT = "prompt"  # the key of entries that are only a text
EXTRA_CELLS = "\n"  # the key of the cells of a row that are beyond the header; no column has such a name
CONTAINERS = ("data_list", "prompts", "data", "rows")  # keys of a JSON object whose value is the list of entries
DELIMITERS = {".csv": (",", ";", "\t"), ".tsv": ("\t",), ".tab": ("\t",)}
FORMATS = ".jsonl, .json, .csv, .tsv, .txt, .parquet, or a folder of .txt files"

EntryUnit = Literal["line", "text", "key", "column", "file"]
"""What a text was taken from, for messages: a line of a file, a text of a JSON list, a key, a column, or a file."""


@dataclass(frozen=True)
class Entry:
    """One entry of a file of prompts.

    Attributes:
        where: The file and the line or number of the entry, for messages.
        fields: Its values by key.
    """

    where: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class EntryList:
    """The entries of a file or folder.

    Attributes:
        path: The file or folder.
        unit: What each text is taken from.
        entries: The entries in order. Blank lines and empty rows are left out.
        container: The key that holds the entries, if they are inside of a JSON object.
        other_columns: Columns that were not read.
        keeps_quotes: Whether cells are separated by tabs and have the quotes that may be around them.
    """

    path: Path
    unit: EntryUnit
    entries: Sequence[Entry]
    container: str = ""
    other_columns: Sequence[str] = ()
    keeps_quotes: bool = False


def read_entries(path: Path, known_columns: Sequence[str]) -> EntryList:
    """Reads the entries of a file or folder, in the format that its suffix says, in capitals or not.

    Args:
        path: The file or folder.
        known_columns: The columns that may be needed, in lower case. Of a Parquet file only these are read.

    Raises:
        UserError: The file cannot be read, or its format is unknown.
    """
    if path.is_dir():
        return _read_folder(path)
    require_regular(path, "Save the prompts to a file.")
    suffix = path.suffix.lower()
    if suffix in DELIMITERS:
        return _read_table(path, DELIMITERS[suffix], known_columns)
    if suffix == ".parquet":
        return _read_parquet(path, known_columns)
    text = read_text_file(path)
    if suffix == ".txt":
        return _read_plain_lines(path, text)
    if suffix not in (".jsonl", ".ndjson", ".json") and text.lstrip()[:1] not in ("", "{", "["):
        raise UserError(f"{path} has no known format. Give a file that ends in {FORMATS}.")
    return _read_json(path, text)


def _read_folder(folder: Path) -> EntryList:
    """One file per prompt, whose name is its id."""
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() == ".txt" and not file.name.startswith("."))
    entries = []
    for file in files:
        text = "\n".join(split_lines(read_text_file(file))).strip()
        if not text:
            raise UserError(f"Prompt file {file} is empty. Write a prompt in it, or delete it.")
        entries.append(Entry(str(file), {"item_id": file.stem, "text": text}))
    return EntryList(folder, "file", entries)


def _read_plain_lines(path: Path, text: str) -> EntryList:
    lines = enumerate(split_lines(text), 1)
    return EntryList(path, "line", [Entry(f"{path}:{n}", {TEXT: line.strip()}) for n, line in lines if line.strip()])


# ---------------------------------------------------------------- JSON


def _read_json(path: Path, text: str) -> EntryList:
    """JSON lines, or one JSON list or object, as the first line and the suffix show."""
    lines = [(f"{path}:{number}", line) for number, line in enumerate(split_lines(text), 1) if line.strip()]
    if lines and _is_one_document(lines[0][1], path.suffix.lower()):
        values = [(str(path), _parse_json(text, str(path), "Write a list of prompts."))]
    else:
        values = [(where, _parse_json(line, where, "Write one object per line.")) for where, line in lines]
    container = ""
    if len(values) == 1:
        content = values[0][1]
        if isinstance(content, dict):
            containers = [key for key in CONTAINERS if isinstance(content.get(key), list)]
            if len(containers) > 1:
                listed = " and ".join(map(repr, containers))
                raise UserError(f"{path} has prompts under {listed}. Put them into one list, or into several files.")
            container = containers[0] if containers else ""
            content = content[container] if container else content
        if isinstance(content, list):
            values = [(f"{path}: entry {number}", value) for number, value in enumerate(content)]
    unit: EntryUnit = "text" if values and isinstance(values[0][1], str) else "key"
    return EntryList(path, unit, [_make_json_entry(where, value) for where, value in values], container)


def _is_one_document(first_line: str, suffix: str) -> bool:
    """Whether a file is one JSON document rather than one object per line."""
    try:
        return isinstance(json.loads(first_line), list)
    except (ValueError, RecursionError):
        return suffix == ".json" or first_line.lstrip().startswith("[") or first_line.strip() == "{"


def _parse_json(text: str, where: str, remedy: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _require_unique(pairs, where))
    except RecursionError as error:
        raise UserError(f"{where}: The JSON is nested too deeply. {remedy}") from error
    except ValueError as error:
        raise UserError(f"{where}: Invalid JSON ({error}). {remedy}") from error


def _require_unique(pairs: Sequence[tuple[str, Any]], where: str) -> dict[str, Any]:
    """Refuses an object that has a key twice, of which the last one would win silently."""
    entry = dict(pairs)
    if len(entry) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise UserError(f"{where}: The key {twice!r} is given twice. Remove one.")
    return entry


def _make_json_entry(where: str, value: Any) -> Entry:
    if isinstance(value, str):
        return Entry(where, {TEXT: value.strip()})
    if not isinstance(value, dict):
        raise UserError(f'{where}: This is not an object. Write one like {{"prompt": "a red fox"}}.')
    return Entry(where, value)


# ---------------------------------------------------------------- tables


def _read_table(path: Path, delimiters: Sequence[str], known_columns: Sequence[str]) -> EntryList:
    """A table with a header. The delimiter is the one that splits the header into a known column."""
    text = read_text_file(path)
    header = split_lines(text.lstrip("\r\n"))[0]
    delimiter = max(delimiters, key=lambda mark: len(_find_known(_split_header(header, mark), known_columns)))
    is_quoted = delimiter != "\t" or _has_quoted_line_ends(path, text)
    rows = _iterate_quoted(path, text, delimiter) if is_quoted else _iterate_unquoted(text)
    columns: list[str] = []
    entries = []
    for line, cells in rows:
        if not columns:
            columns = _require_columns(path, [cell.strip() for cell in cells])
        elif any(cell.strip() for cell in cells):
            fields: dict[str, Any] = {**dict.fromkeys(columns), **dict(zip(columns, cells, strict=False))}
            if any(cell.strip() for cell in cells[len(columns) :]):
                fields[EXTRA_CELLS] = cells[len(columns) :]
            entries.append(Entry(f"{path}:{line}", fields))
    return EntryList(path, "column", entries, keeps_quotes=not is_quoted)


def _split_header(header: str, delimiter: str) -> list[str]:
    return [cell.strip().strip('"') for cell in header.split(delimiter)]


def _find_known(columns: Sequence[str], known_columns: Sequence[str]) -> list[str]:
    return [column for column in columns if column.lower() in known_columns]


def _require_columns(path: Path, columns: list[str]) -> list[str]:
    twice = next((column for column in columns if column and columns.count(column) > 1), None)
    if twice:
        raise UserError(f"{path}: The column {twice!r} is given twice. Rename or remove one.")
    return columns


def _iterate_quoted(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Rows as spreadsheets write them, with the number of their last line."""
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # tables may have images in columns
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in rows:
            if cells:
                yield rows.line_num, cells
    except csv.Error as error:
        raise UserError(
            f"Prompt file {path} cannot be read ({error}, line {rows.line_num}). Put texts that contain quotes or line "
            "breaks in double quotes, and double the quotes inside of them."
        ) from error


def _has_quoted_line_ends(path: Path, text: str) -> bool:
    """Whether cells between tabs are quoted, as spreadsheets do for cells with line breaks.

    Quotes may also be a part of texts. They are around cells if every row then has as many cells as the header.

    Raises:
        UserError: A cell begins with a quote and the next line is not a whole row, but the file cannot be read so.
    """
    lines = list(_iterate_unquoted(text))
    try:
        rows = list(_iterate_quoted(path, text, "\t"))
    except UserError:
        rows = []
    rows = [(line, cells) for line, cells in rows if any(cell.strip() for cell in cells)]
    width = len(lines[0][1]) if lines else 0
    if rows and all(len(cells) == width for _, cells in rows):
        return len(rows) < len(lines)
    for (line, cells), (_, following) in pairwise(lines):
        if len(following) != width and cells[-1].startswith('"') and cells[-1].count('"') % 2:
            raise UserError(
                f"{path}:{line}: A cell begins with a quote that does not end on the line. Put a quote at the end "
                "of the cell, double the quotes inside of it, and give each row as many cells as the header."
            )
    return False


def _iterate_unquoted(text: str) -> Iterator[tuple[int, list[str]]]:
    """Rows whose cells are separated by tabs, and contain neither tabs nor line ends. Quotes stay."""
    for number, line in enumerate(split_lines(text), 1):
        if line.strip():
            yield number, line.split("\t")


def _read_parquet(path: Path, known_columns: Sequence[str]) -> EntryList:
    """The known columns only, since data sets of the Hub may hold images as well."""
    try:
        parquet: Any = import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise UserError(
            f"{path} is a Parquet file, which needs the package 'pyarrow'. Run: pip install pyarrow, or save the "
            "prompts as .csv or .jsonl."
        ) from error
    try:
        columns = list(parquet.read_schema(path).names)
        known = _find_known(_require_columns(path, columns), known_columns)
        rows = parquet.read_table(path, columns=known).to_pylist() if known else []
    except (OSError, ValueError) as error:
        reason = summarize_error(error)
        raise UserError(f"Prompt file {path} cannot be read ({reason}). It must be a Parquet file.") from error
    if not known:
        return EntryList(path, "column", [Entry(str(path), dict.fromkeys(columns))])
    entries = [Entry(f"{path}: row {number}", row) for number, row in enumerate(rows)]
    return EntryList(path, "column", entries, other_columns=[column for column in columns if column not in known])
