"""Hypothesis strategies that damage valid files: their structure where the format is known, else their bytes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml
from hypothesis import strategies as st

Path = tuple[Any, ...]  # keys and positions that lead from a tree's root to a value

NESTING, MANY, LONG = 5_000, 5_000, 100_000
NESTED, DUPLICATE = "@nested@", "@duplicate@"  # are replaced in the text: libraries write neither
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5, 1e308, -1e-320,
    float("nan"), float("inf"), float("-inf"), "", " ", "x", "1", "../outside", "/outside", "a\0b", "\ud800", "𝔘", "\n",
    "{{ x }}", "{% for %}", [], {}, [[]], [None], {"": 0}, {"x": {"x": []}}, NESTED, "x" * LONG, ["x"] * MANY,
)  # fmt: skip
YAML_LINES = (
    "x: &a [*a]",
    "!!timestamp x",
    "!!binary x",
    "? [x]",
    "<<: x",
    "%YAML 9.9",
    "---",
    "...",
    "\t- x",
    "x: !y z",
)
KEYS = ("x", "", " ", "a.b", "../x", "\0", "𝔘")  # of objects
ENCODINGS = ("utf-8-sig", "utf-16", "utf-32", "latin-1", "utf-16-be")


@dataclass(frozen=True)
class Format:
    """How a file's structure is read and written.

    Attributes:
        parse: Reads a tree of mappings, lists and plain values.
        dump: Writes it.
    """

    parse: Callable[[bytes], Any]
    dump: Callable[[Any], bytes]


def _dump_json(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def _dump_yaml(tree: Any) -> bytes:
    try:
        return yaml.dump(tree, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper)).encode()
    except (UnicodeEncodeError, yaml.YAMLError):  # a lone surrogate
        return _dump_json(tree)


def _dump_rows(rows: Any) -> bytes:
    stream = io.StringIO()
    table = rows if isinstance(rows, list) else [rows]
    csv.writer(stream).writerows(row if isinstance(row, list) else [row] for row in table)
    return stream.getvalue().encode("utf-8", "surrogatepass")


def _parse_safetensors(content: bytes) -> Any:
    length = int.from_bytes(content[:8], "little")
    return {"length": None, "header": json.loads(content[8 : 8 + length]), "bytes": len(content) - 8 - length}


def _dump_safetensors(tree: Any) -> bytes:
    """The true length unless another one is given; as many zeros as there were bytes."""
    parts = tree if isinstance(tree, dict) else {"header": tree}
    header = _dump_json(parts.get("header"))
    length, zeros = parts.get("length"), parts.get("bytes")
    length = length if isinstance(length, int) and 0 <= length < 2**64 else len(header)
    return length.to_bytes(8, "little") + header + bytes(zeros if isinstance(zeros, int) and 0 < zeros < LONG else 0)


def _dump_lines(tree: Any) -> bytes:
    return b"\n".join(map(_dump_json, tree if isinstance(tree, list) else [tree]))


FORMATS: Mapping[str, Format] = {
    "json": Format(json.loads, _dump_json),
    "jsonl": Format(lambda content: [json.loads(line) for line in content.splitlines()], _dump_lines),
    "yaml": Format(lambda content: yaml.safe_load(content), _dump_yaml),
    "csv": Format(lambda content: list(csv.reader(io.StringIO(content.decode()))), _dump_rows),
    "safetensors": Format(_parse_safetensors, _dump_safetensors),
}


@st.composite
def damaged(draw: st.DrawFn, content: bytes, file_format: str | None) -> bytes:
    """Files that differ from a valid one in one to three places.

    Args:
        draw: Hypothesis's.
        content: The valid file.
        file_format: One of FORMATS; None: only bytes are changed.
    """
    kind = draw(st.integers(0, 9)) if file_format else 9
    if file_format and kind < 8:
        tree = parse(content, file_format)
        for _ in range(draw(st.integers(1, 3))):
            tree = _edit(draw, tree)
        content = _dump(tree, file_format)
    if kind >= 7:
        for _ in range(draw(st.integers(1, 3))):
            content = _corrupt(draw, content, file_format == "yaml")
    return content


@cache
def parse(content: bytes, file_format: str) -> Any:
    """The tree of a valid file. It must not be changed."""
    return FORMATS[file_format].parse(content)


def _dump(tree: Any, file_format: str) -> bytes:
    content = FORMATS[file_format].dump(tree).replace(DUPLICATE.encode(), b"")
    nested = b"[" * NESTING + b"]" * NESTING
    return content.replace(b'"' + NESTED.encode() + b'"', nested).replace(b"'" + NESTED.encode() + b"'", nested)


# ---------------------------------------------------------------- structure


# Functions of `draw` and not strategies: making one for each case took more time than the cases.


def _edit(draw: st.DrawFn, tree: Any) -> Any:
    """A tree in which one value differs: deleted, of another type, moved, repeated, renamed or wrapped."""
    paths = list(_list_paths(tree))
    path = paths[draw(st.integers(0, len(paths) - 1))]
    edit = draw(st.sampled_from(("value", "value", "delete", "copy", "repeat", "rename", "wrap", "number")))
    value = _find(tree, path)
    if edit == "value":
        return _replace(tree, path, draw(st.sampled_from(VALUES)))
    if edit == "number":
        number = draw(st.one_of(st.integers(-(2**70), 2**70), st.floats()))
        return _replace(tree, path, number)
    if edit == "copy":
        return _replace(tree, path, _find(tree, paths[draw(st.integers(0, len(paths) - 1))]))
    if edit == "wrap":
        return _replace(tree, path, draw(st.sampled_from(([value], {"x": value}, [value, value]))))
    return _edit_parent(tree, path, edit, draw(st.sampled_from(KEYS)))


def _edit_parent(tree: Any, path: Path, edit: str, text: str) -> Any:
    if not path:
        return {text: tree}
    parent, key = _find(tree, path[:-1]), path[-1]
    if isinstance(parent, dict):
        items = dict(parent)
        value = items.pop(key)
        if edit == "rename":
            items[text or "x"] = value
        elif edit == "repeat":
            items |= {key: value, f"{key}{DUPLICATE}": value}
        return _replace(tree, path[:-1], items)
    entries = list(parent)
    entries[key : key + 1] = [] if edit == "delete" else [parent[key]] * 2
    return _replace(tree, path[:-1], entries)


def _list_paths(tree: Any, path: Path = ()) -> Iterator[Path]:
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    if len(path) < 12 and (len(items) < MANY if isinstance(items, dict) else True):
        for number, (key, value) in enumerate(items):
            if number < 40:
                yield from _list_paths(value, (*path, key))


def _find(tree: Any, path: Path) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _replace(tree: Any, path: Path, value: Any) -> Any:
    """A tree with another value at a path; the rest is shared."""
    if not path:
        return value
    changed = dict(tree) if isinstance(tree, dict) else list(tree)
    changed[path[0]] = _replace(tree[path[0]], path[1:], value)
    return changed


# ---------------------------------------------------------------- bytes


def _corrupt(draw: st.DrawFn, content: bytes, is_yaml: bool) -> bytes:
    """A file cut, with flipped bits, with bytes inserted, left out or repeated, or in another encoding."""
    kinds = ["cut", "flip", "insert", "remove", "repeat", "encode", *(["line"] if is_yaml else [])]
    kind = draw(st.sampled_from(kinds))
    begin = draw(st.integers(0, len(content)))
    end = min(len(content), begin + draw(st.integers(1, 64)))
    if kind == "cut":
        return content[:begin]
    if kind == "flip":
        mask = draw(st.integers(1, 255))
        return content[:begin] + bytes(byte ^ mask for byte in content[begin : begin + 1]) + content[begin + 1 :]
    if kind == "insert":
        return content[:begin] + draw(st.binary(min_size=1, max_size=16)) + content[begin:]
    if kind == "remove":
        return content[:begin] + content[end:]
    if kind == "repeat":
        return content[:end] + content[begin:end] * draw(st.integers(1, 100)) + content[end:]
    if kind == "line":
        lines = content.split(b"\n")
        position = draw(st.integers(0, len(lines)))
        return b"\n".join([*lines[:position], draw(st.sampled_from(YAML_LINES)).encode(), *lines[position:]])
    return content.decode("utf-8", "replace").encode(draw(st.sampled_from(ENCODINGS)), "replace")
