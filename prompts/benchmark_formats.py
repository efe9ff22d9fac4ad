"""Readers of prompt files: edgepress's own format, and those of published benchmarks."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..common.errors import UserError
from .prompt import Language, Prompt, is_cjk, load_prompts, read_text_file

PARTI_COLUMNS = ["Prompt", "Category", "Challenge"]
Entries = Iterator[tuple[str, dict[str, Any]]]  # (location for messages, entry)


def read_prompts(path: Path) -> list[Prompt]:
    """Reads the prompts of a file or folder, in the format that its suffix and its keys suggest.

    Raises:
        UserError: The file cannot be read, or an entry is invalid.
    """
    if path.is_dir():
        return list(_read_dpg_folder(path))
    return _READERS.get(path.suffix, _read_json_lines)(path)


def _read_json_lines(path: Path) -> list[Prompt]:
    """JSON lines in one of three formats, which the keys of the first entry tell apart."""
    _, first = next(_iterate_json_lines(path), ("", {}))
    if "tag" in first and "include" in first:
        return [_parse_geneval(where, number, entry) for number, (where, entry) in enumerate(_iterate_json_lines(path))]
    if "prompt_id" in first and "text" in first:
        return [_parse_longtext(where, path, entry) for where, entry in _iterate_json_lines(path)]
    return load_prompts(path)


def _parse_geneval(where: str, number: int, entry: dict[str, Any]) -> Prompt:
    """GenEval (github.com/djghosh13/geneval), with ids numbered as its folders are."""
    return Prompt(
        id=f"geneval-{number:05d}",
        prompt=_require_text(where, entry, "prompt"),
        language="en",
        categories={"tag": _require_text(where, entry, "tag")},
    )


def _parse_longtext(where: str, path: Path, entry: dict[str, Any]) -> Prompt:
    """LongText-Bench (github.com/X-Omni-Team/X-Omni): `text` is the text to show, a string or a list of strings."""
    text = entry["text"] if isinstance(entry.get("text"), list) else [_require_text(where, entry, "text")]
    if not all(isinstance(line, str) for line in text):
        raise UserError(f"{where}: text must be a string or a list of strings.")
    prompt = _require_text(where, entry, "prompt")
    categories = {key: entry[key] for key in ("category", "length") if isinstance(entry.get(key), str)}
    return Prompt(
        id=f"{path.stem}-{entry.get('prompt_id')}",
        prompt=prompt,
        language=_detect_language(" ".join([prompt, *text])),
        lines=tuple(text),
        categories=categories,
    )


def _iterate_json_lines(path: Path) -> Entries:
    for number, line in enumerate(read_text_file(path).split("\n"), 1):
        if line.strip():
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}:{number}: Invalid JSON ({error}). Write one object per line.") from error
            yield f"{path}:{number}", entry if isinstance(entry, dict) else {}


def _read_parti(path: Path) -> list[Prompt]:
    """PartiPrompts (github.com/google-research/parti): tab-separated with a header, without quoting."""
    return [
        Prompt(
            id=f"parti-{number:04d}",
            prompt=_require_text(where, row, "Prompt").strip(),
            language="en",
            categories={
                "category": _require_text(where, row, "Category"),
                "challenge": _require_text(where, row, "Challenge"),
            },
        )
        for number, (where, row) in enumerate(
            _iterate_rows(path, PARTI_COLUMNS, delimiter="\t", quoting=csv.QUOTE_NONE)
        )
    ]


def _read_dpg_csv(path: Path) -> list[Prompt]:
    """DPG-Bench's dpg_bench.csv: one row per question, several per prompt (columns as in compute_dpg_bench.py)."""
    texts: dict[str, str] = {}
    for where, row in _iterate_rows(path, ["item_id", "text"]):
        texts.setdefault(_require_text(where, row, "item_id"), _require_text(where, row, "text").strip())
    return [Prompt(id=f"dpg-{name}", prompt=text, language="en") for name, text in texts.items()]


def _iterate_rows(path: Path, columns: Sequence[str], **csv_options: Any) -> Entries:
    """The rows of a table whose header has at least the given columns."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, **csv_options)
            if not set(columns) <= set(rows.fieldnames or ()):
                raise UserError(f"{path} is not a known prompt set. It must have the columns {', '.join(columns)}.")
            for row in rows:
                yield f"{path}:{rows.line_num}", row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"Prompt file {path} cannot be read ({error}). It must be a UTF-8 text file.") from error


def _read_cvtg(path: Path) -> list[Prompt]:
    """CVTG-2K (github.com/NJU-PCALab/TextCrafter): one file per number of regions, with sentences to show."""
    try:
        content = json.loads(read_text_file(path))
    except ValueError as error:
        raise UserError(f"Prompt file {path} cannot be read ({error}). It must be a JSON file.") from error
    entries = content.get("data_list") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{path} is not a CVTG-2K file: it has no data_list of objects.")
    prompts = []
    for number, entry in enumerate(entries):
        where = f"{path}: entry {number}"
        sentences = entry.get("sentence_list")
        if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
            raise UserError(f"{where}: sentence_list must be a list of strings.")
        text = _require_text(where, entry, "prompt")
        prompts.append(
            Prompt(
                id=f"{path.parent.name.lower()}-{path.stem}-{entry.get('index', number)}",
                prompt=text,
                language=_detect_language(" ".join([text, *sentences])),
                lines=tuple(sentences),
                categories={"regions": str(len(sentences))},
            )
        )
    return prompts


def _read_dpg_folder(folder: Path) -> Iterator[Prompt]:
    """DPG-Bench (github.com/TencentQQGYLab/ELLA, dpg_bench/prompts): one file per prompt, whose name is its id."""
    for file in sorted(folder.glob("*.txt")):
        text = read_text_file(file).strip()
        if not text:
            raise UserError(f"Prompt file {file} is empty. Write a prompt in it, or delete it.")
        yield Prompt(id=f"dpg-{file.stem}", prompt=text, language="en")


_READERS: dict[str, Callable[[Path], list[Prompt]]] = {".tsv": _read_parti, ".json": _read_cvtg, ".csv": _read_dpg_csv}


def _require_text(where: str, entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {key} must be a non-empty string.")
    return value


def _detect_language(text: str) -> Language:
    """Chinese if the text contains a Chinese character, else English."""
    return "zh" if any(map(is_cjk, text)) else "en"
