"""The formats of published benchmarks, recognized by the keys of their first entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..common.errors import UserError
from .entries import Entry, EntryList
from .fields import require_text, shorten
from .prompt import Prompt, detect_language

PARTI_COLUMNS = frozenset({"Prompt", "Category", "Challenge"})
COLUMNS = ("prompt", "category", "challenge", "item_id", "text", "tag", "include", "prompt_id")  # in lower case
LocatedPrompts = Iterator[tuple[str, Prompt]]  # each with the location of its entry, for messages


def find_benchmark(entries: EntryList) -> Callable[[EntryList], LocatedPrompts] | None:
    """The converter of a published benchmark's entries; None if they are of no such benchmark."""
    if entries.container == "data_list":
        return _convert_cvtg
    if entries.unit == "file":
        return _convert_dpg
    keys = frozenset(entries.entries[0].fields)
    if entries.unit == "key" and {"tag", "include"} <= keys:
        return _convert_geneval
    if entries.unit == "key" and {"prompt_id", "text", "prompt"} <= keys:
        return _convert_longtext
    if entries.unit == "column" and keys >= PARTI_COLUMNS:
        return _convert_parti
    return _convert_dpg if entries.unit == "column" and {"item_id", "text"} <= keys else None


def _convert_geneval(entries: EntryList) -> LocatedPrompts:
    """GenEval (github.com/djghosh13/geneval), with ids numbered as its folders are."""
    for number, entry in enumerate(entries.entries):
        yield (
            entry.where,
            Prompt(
                id=f"geneval-{number:05d}",
                prompt=require_text(entry, "prompt"),
                language="en",
                categories={"tag": require_text(entry, "tag")},
            ),
        )


def _convert_longtext(entries: EntryList) -> LocatedPrompts:
    """LongText-Bench (github.com/X-Omni-Team/X-Omni): `text` is the text to show, a string or a list of strings."""
    for entry in entries.entries:
        fields = entry.fields
        text = fields["text"] if isinstance(fields.get("text"), list) else [require_text(entry, "text")]
        if not all(isinstance(line, str) for line in text):
            raise UserError(f"{entry.where}: text must be a string or a list of strings, not {shorten(text)}.")
        prompt = require_text(entry, "prompt")
        categories = {key: fields[key] for key in ("category", "length") if isinstance(fields.get(key), str)}
        yield (
            entry.where,
            Prompt(
                id=f"{entries.path.stem}-{fields.get('prompt_id')}",
                prompt=prompt,
                language=detect_language(" ".join([prompt, *text])),
                lines=tuple(text),
                categories=categories,
            ),
        )


def _convert_parti(entries: EntryList) -> LocatedPrompts:
    """PartiPrompts (github.com/google-research/parti): tab-separated with a header, without quoting."""
    for number, entry in enumerate(entries.entries):
        categories = {key.lower(): require_text(entry, key) for key in ("Category", "Challenge")}
        prompt = require_text(entry, "Prompt").strip()
        yield entry.where, Prompt(id=f"parti-{number:04d}", prompt=prompt, language="en", categories=categories)


def _convert_dpg(entries: EntryList) -> LocatedPrompts:
    """DPG-Bench (github.com/TencentQQGYLab/ELLA): one file per prompt, or a table with a row per question about one."""
    texts: dict[str, str] = {}
    for entry in entries.entries:
        name, text = require_text(entry, "item_id"), require_text(entry, "text").strip()
        if texts.setdefault(name, text) != text:
            raise UserError(f"{entry.where}: The item_id {name!r} has another text before. Give each text its own.")
        if text is texts[name]:
            yield entry.where, Prompt(id=f"dpg-{name}", prompt=text, language="en")


def _convert_cvtg(entries: EntryList) -> LocatedPrompts:
    """CVTG-2K (github.com/NJU-PCALab/TextCrafter): one file per number of regions, with sentences to show."""
    for number, entry in enumerate(entries.entries):
        text, sentences = require_text(entry, "prompt"), _parse_sentences(entry)
        yield (
            entry.where,
            Prompt(
                id=f"{entries.path.parent.name.lower()}-{entries.path.stem}-{entry.fields.get('index', number)}",
                prompt=text,
                language=detect_language(" ".join([text, *sentences])),
                lines=tuple(sentences),
                categories={"regions": str(len(sentences))},
            ),
        )


def _parse_sentences(entry: Entry) -> list[str]:
    sentences = entry.fields.get("sentence_list")
    if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
        raise UserError(f"{entry.where}: sentence_list must be a list of strings, not {shorten(sentences)}.")
    return sentences
