"""Compares what two runs of a command left in a folder, without what differs from run to run."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from ...storage.layout import CHECKSUMS_NAME, EVALUATION_RESULTS, LOCAL_CHECKSUMS

# Ends of names; only their names are compared.
TIMED_FILES = ("timings.json", LOCAL_CHECKSUMS, ".html", ".md", ".xml")
TIMED_KEYS = {"created", "stage_seconds", "metric_costs", "build", "memory"}  # of JSON objects
BUILT_SUFFIX = ".rknn"  # rknn-toolkit2 never builds the same bytes twice
HASHES = ("sha256", "bytes")  # of such files, in JSON


def hash_tree(path: Path) -> Mapping[str, str]:
    """Hashes of a file, or of all files below a folder, by path; empty folders count as well."""
    if path.is_file():
        return {path.name: _hash_content(path)}
    hashes = {}
    for parent, folders, names in os.walk(path):
        if not folders and not names:
            hashes[f"{os.path.relpath(parent, path)}/"] = ""
        for name in names:
            file = Path(parent) / name
            hashes[str(file.relative_to(path))] = _hash_content(file)
    return hashes


def hash_bytes(folder: Path) -> str:
    """One hash of all that is in a folder, byte for byte, with the permissions."""
    content = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        content.update(f"{path.relative_to(folder)}\0{path.lstat().st_mode}\0".encode())
        if path.is_file():
            content.update(hashlib.sha256(path.read_bytes()).digest())
    return content.hexdigest()


def describe_difference(expected: Mapping[str, str], actual: Mapping[str, str]) -> str | None:
    """Says which files are missing, should not be there or differ, if any."""
    groups = {
        "missing": expected.keys() - actual.keys(),
        "left behind": actual.keys() - expected.keys(),
        "different": {name for name in expected.keys() & actual.keys() if expected[name] != actual[name]},
    }
    return "; ".join(f"{kind}: {', '.join(sorted(names)[:5])}" for kind, names in groups.items() if names) or None


def _hash_content(file: Path) -> str:
    """The hash of a file, without what differs from run to run."""
    lists_results = file.name == CHECKSUMS_NAME and file.with_name(EVALUATION_RESULTS).exists()
    if file.name.endswith(TIMED_FILES) or lists_results:
        return ""
    if file.suffix == ".sqlite":
        return _check_database(file)
    content = file.read_bytes()
    if file.suffix == ".json":
        content = json.dumps(_remove_keys(json.loads(content))).encode()
    return hashlib.sha256(content).hexdigest()


def _check_database(file: Path) -> str:
    """`ok`, or what is wrong with a database."""
    connection = sqlite3.connect(f"file:{file}?mode=ro&immutable=1", uri=True)
    try:
        return str(connection.execute("PRAGMA quick_check").fetchone()[0])
    except sqlite3.DatabaseError as error:
        return str(error)
    finally:
        connection.close()


def _remove_keys(value: object) -> object:
    if isinstance(value, dict):
        return {key: _remove_keys(item) for key, item in value.items() if key not in TIMED_KEYS}
    return [_remove_keys(item) for item in value] if isinstance(value, list) else value
