"""Prompt sets by name or path: our own, and published ones in the formats that their authors publish.

a name         a set of recipes/prompts/, such as text-en
FILE.jsonl     ours (docs/prompts.md), GenEval's (evaluation_metadata) or LongText-Bench's (text_prompts)
FILE.tsv       PartiPrompts
FILE.json      CVTG-2K
FILE.csv       DPG-Bench in one file
FOLDER         DPG-Bench: one .txt a prompt
"""

from __future__ import annotations

import csv
import difflib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .errors import UserError
from .prompts import Language, Prompt, is_han, load_prompts
from .sources import ROOT

SHIPPED = ROOT / "recipes" / "prompts"
PARTI_COLUMNS = ["Prompt", "Category", "Challenge"]
Entries = Iterator[tuple[str, dict[str, Any]]]  # where it stands, and the entry


def names() -> list[str]:
    """The sets that are shipped."""
    return sorted(path.stem for path in SHIPPED.glob("*.jsonl"))


def load(name_or_path: str | Path) -> list[Prompt]:
    """The prompts of a set, in its order. The name of a shipped set wins over a file of that name here.

    Raises:
        UserError: no such set or file, a format that is not known, or an entry that is no prompt.
    """
    path = locate(name_or_path)
    if path.is_dir():
        return _some(list(_dpg(path)), path)
    reader = _READERS.get(path.suffix, _json_lines)
    return _some(reader(path), path)


def locate(name_or_path: str | Path) -> Path:
    """The file or folder of a set.

    Raises:
        UserError: there is none.
    """
    shipped = SHIPPED / f"{name_or_path}.jsonl"
    if str(name_or_path) in names():
        return shipped
    path = Path(name_or_path)
    if path.exists():
        return path
    near = difflib.get_close_matches(str(name_or_path), names(), 1)
    hint = f"did you mean {near[0]!r}?" if near else f"the sets that come with edgepress: {', '.join(names())}."
    raise UserError(f"There is no prompt set or file {str(name_or_path)!r}; {hint}")


# ---------------------------------------------------------------- JSON lines: ours, GenEval, LongText-Bench


def _json_lines(path: Path) -> list[Prompt]:
    """Told apart by the keys of the first entry."""
    _, first = next(_entries(path), ("", {}))
    if "tag" in first and "include" in first:
        return [_geneval(where, number, entry) for number, (where, entry) in enumerate(_entries(path))]
    if "prompt_id" in first and "text" in first:
        return [_longtext(where, path, entry) for where, entry in _entries(path)]
    return load_prompts(path)


def _geneval(where: str, number: int, entry: dict[str, Any]) -> Prompt:
    """GenEval (github.com/djghosh13/geneval): what its detectors look for, by tag; numbered as its folders are."""
    return Prompt(
        id=f"geneval-{number:05d}",
        prompt=_text(where, entry, "prompt"),
        language="en",
        categories={"tag": _text(where, entry, "tag")},
    )


def _longtext(where: str, path: Path, entry: dict[str, Any]) -> Prompt:
    """LongText-Bench (github.com/X-Omni-Team/X-Omni): `text` is what must be painted, a list or one string."""
    text = entry["text"] if isinstance(entry.get("text"), list) else [_text(where, entry, "text")]
    if not all(isinstance(line, str) for line in text):
        raise UserError(f"{where}: text must be a string or a list of strings.")
    prompt = _text(where, entry, "prompt")
    given = {key: entry[key] for key in ("category", "length") if isinstance(entry.get(key), str)}
    return Prompt(
        id=f"{path.stem}-{entry.get('prompt_id')}",
        prompt=prompt,
        language=_language(" ".join([prompt, *text])),
        lines=tuple(text),
        categories=given,
    )


def _entries(path: Path) -> Entries:
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Prompt file {path} cannot be read ({error}); give a UTF-8 file.") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                entry = json.loads(line)
            except ValueError as error:
                raise UserError(f"{path}:{number}: no JSON ({error}); write one object a line.") from error
            yield f"{path}:{number}", entry if isinstance(entry, dict) else {}


# ---------------------------------------------------------------- tables: PartiPrompts, DPG-Bench


def _parti(path: Path) -> list[Prompt]:
    """PartiPrompts (github.com/google-research/parti): tab-separated, with a header; quotes are letters."""
    return [
        Prompt(
            id=f"parti-{number:04d}",
            prompt=_text(where, row, "Prompt").strip(),
            language="en",
            categories={"category": _text(where, row, "Category"), "challenge": _text(where, row, "Challenge")},
        )
        for number, (where, row) in enumerate(_rows(path, PARTI_COLUMNS, delimiter="\t", quoting=csv.QUOTE_NONE))
    ]


def _dpg_csv(path: Path) -> list[Prompt]:
    """DPG-Bench's dpg_bench.csv: a row a question, several a prompt (columns as compute_dpg_bench.py reads)."""
    texts: dict[str, str] = {}
    for where, row in _rows(path, ["item_id", "text"]):
        texts.setdefault(_text(where, row, "item_id"), _text(where, row, "text").strip())
    return [Prompt(id=f"dpg-{name}", prompt=text, language="en") for name, text in texts.items()]


def _rows(path: Path, columns: Sequence[str], **form: Any) -> Entries:
    """The rows of a table with a header, which has at least these columns. form: how csv reads it."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, **form)
            if not set(columns) <= set(rows.fieldnames or ()):
                raise UserError(f"{path} is no prompt set that is known: it lacks a column of {', '.join(columns)}.")
            for row in rows:
                yield f"{path}:{rows.line_num}", row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"Prompt file {path} cannot be read ({error}); give a UTF-8 file.") from error


# ---------------------------------------------------------------- CVTG-2K, DPG-Bench


def _cvtg(path: Path) -> list[Prompt]:
    """CVTG-2K (github.com/NJU-PCALab/TextCrafter): a file for each number of regions; sentences are what is painted."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"Prompt file {path} cannot be read ({error}); give a UTF-8 file of JSON.") from error
    entries = content.get("data_list") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(f"{path} is not CVTG-2K: it has no data_list of objects.")
    prompts = []
    for number, entry in enumerate(entries):
        where = f"{path}: entry {number}"
        sentences = entry.get("sentence_list")
        if not isinstance(sentences, list) or not all(isinstance(one, str) for one in sentences):
            raise UserError(f"{where}: sentence_list must be a list of strings.")
        asked = _text(where, entry, "prompt")
        prompts.append(
            Prompt(
                id=f"{path.parent.name.lower()}-{path.stem}-{entry.get('index', number)}",
                prompt=asked,
                language=_language(" ".join([asked, *sentences])),
                lines=tuple(sentences),
                categories={"regions": str(len(sentences))},
            )
        )
    return prompts


def _dpg(folder: Path) -> Iterator[Prompt]:
    """DPG-Bench (github.com/TencentQQGYLab/ELLA, dpg_bench/prompts): one prompt a file, whose name is its id."""
    for file in sorted(folder.glob("*.txt")):
        try:
            text = file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"Prompt file {file} cannot be read ({error}); give a UTF-8 file.") from error
        if not text:
            raise UserError(f"Prompt file {file} is empty; write a prompt in it, or remove it.")
        yield Prompt(id=f"dpg-{file.stem}", prompt=text, language="en")


_READERS: dict[str, Callable[[Path], list[Prompt]]] = {".tsv": _parti, ".json": _cvtg, ".csv": _dpg_csv}


# ---------------------------------------------------------------- what all share


def _some(prompts: list[Prompt], path: Path) -> list[Prompt]:
    if not prompts:
        raise UserError(f"{path} holds no prompt; see docs/prompts.md for the formats.")
    ids = [prompt.id for prompt in prompts]
    twice = next((one for one in ids if ids.count(one) > 1), None) if len(set(ids)) < len(ids) else None
    if twice:
        raise UserError(f"{path}: the id {twice!r} stands there twice; ids must differ.")
    return prompts


def _text(where: str, entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {key} must be a text that is not empty.")
    return value


def _language(text: str) -> Language:
    """Chinese where there is a Chinese character."""
    return "zh" if any(map(is_han, text)) else "en"
