"""Compares two artifacts file by file: what two releases of edgepress make of the same recipe and model.

    python -m edgepress.benchmarks.common.compare_artifacts OLD NEW

Files are equal if their bytes are. JSON files are read through their schemas, which know the keys of earlier releases,
so that a renamed key is no difference. Graphs are compared without torch's notes at their nodes, which hold module
names and paths of the exporting machine. Not compared: times, versions and paths, reports, and what rknn-toolkit2
builds, whose bytes differ from run to run.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import onnx

from ...evaluate.results.results_file import load_results
from ...storage.files import hash_file
from ...storage.layout import CHECKSUMS_NAME, EVALUATION, MODEL, ONNX, RKNN
from ...storage.manifest import read_manifest
from ...storage.pipeline_config import read_onnx_config, read_rknn_config

COMPARED = (MODEL, ONNX, RKNN)
BUILT_SUFFIXES = (".rknn", ".py")  # the board's script is documentation too, and may be reworded
RENAMED_CONFIG_KEYS = {"unread": "unused_blocks", "dropped": "unused_modules", "kept": "float_modules"}
# Of pipeline.json: where it was made, and what every run measures again.
VOLATILE = {"sources", "files", "model_sha256", "path", "build", "memory", "bytes", "sha256", "settings", "toolkit"}


def compare(old: Path, new: Path) -> Iterator[tuple[str, str]]:
    """Compares two artifacts.

    Yields:
        A file or topic, and how the two differ; an empty string if they are equal.
    """
    names = [_list_files(folder) for folder in (old, new)]
    for name in sorted(names[0] | names[1]):
        if name not in names[0] or name not in names[1]:
            yield name, "only in the old one" if name in names[0] else "only in the new one"
        elif not name.endswith(BUILT_SUFFIXES):
            yield name, _compare_files(old, new, name)
    results = [(folder / EVALUATION / "results.json").exists() for folder in (old, new)]
    if any(results):
        difference = _compare_results(old / EVALUATION, new / EVALUATION) if all(results) else "only one has it"
        yield f"{EVALUATION}/results.json", difference
    yield "manifest.json: layers and sizes", _compare_manifests(old, new)


def _list_files(artifact: Path) -> set[str]:
    return {
        path.relative_to(artifact).as_posix()
        for folder in COMPARED
        for path in (artifact / folder).rglob("*")
        if path.is_file() and path.name != CHECKSUMS_NAME
    }


def _compare_files(old: Path, new: Path, name: str) -> str:
    if hash_file(old / name) == hash_file(new / name):
        return ""
    if name.endswith(".onnx"):
        return "" if _read_graph(old / name) == _read_graph(new / name) else "differs"
    if not name.endswith(".json"):
        return "differs"
    return _first_difference(_stable(_read_json(old, name)), _stable(_read_json(new, name)))


def _read_graph(file: Path) -> bytes:
    """A graph without metadata."""
    model = onnx.load(str(file), load_external_data=False)
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    content: bytes = model.SerializeToString()
    return content


def _read_json(artifact: Path, name: str) -> Any:
    if name == f"{ONNX}/pipeline.json":
        return read_onnx_config(artifact / ONNX).model_dump(mode="json")
    if name == f"{RKNN}/pipeline.json":
        return read_rknn_config(artifact / RKNN).model_dump(mode="json")
    return _rename_keys(json.loads((artifact / name).read_text("utf-8")))


def _compare_results(old: Path, new: Path) -> str:
    """The scores of every image and pair, to the last digit."""
    before, after = (load_results(folder / "results.json").model_dump(mode="json")["samples"] for folder in (old, new))
    keep = {
        "values",
        "notes",
        "defect",
        "failure",
        "identical",
        "variants",
        "reference",
        "image",
        "prompt",
        "id",
        "seed",
    }
    return _first_difference(_only(before, keep), _only(after, keep))


def _compare_manifests(old: Path, new: Path) -> str:
    before, after = read_manifest(old), read_manifest(new)
    if before is None or after is None:
        return "" if before is after else "one has no manifest"
    topics = ("layers", "extra_scheme_layers", "sizes", "num_unquantized", "fp16_overflows", "prompts_sha256")
    layers = [{topic: getattr(manifest, topic) for topic in topics} for manifest in (before, after)]
    return _first_difference(layers[0], layers[1])


def _rename_keys(content: Any) -> Any:
    """JSON with the keys of this release; of a scheme, only the keys are renamed that mean the same."""
    if isinstance(content, list):
        return [_rename_keys(entry) for entry in content]
    if not isinstance(content, dict):
        return content
    return {
        RENAMED_CONFIG_KEYS.get(key, key): _rename_keys(value)
        for key, value in content.items()
        if key != "scheme"  # the recipe's, which the manifest's test covers
    }


def _stable(content: Any) -> Any:
    """JSON without what differs from run to run."""
    if isinstance(content, list):
        return [_stable(entry) for entry in content]
    if not isinstance(content, dict):
        return content
    return {key: _stable(value) for key, value in content.items() if key not in VOLATILE}


def _only(content: Any, keys: set[str], inside: bool = False) -> Any:
    """JSON with some keys only; below `values`, `notes` and `variants`, whose keys are names, with all of them."""
    if isinstance(content, list):
        return [_only(entry, keys, inside) for entry in content]
    if not isinstance(content, dict):
        return content
    names = {"values", "notes", "variants"}
    return {
        key: _only(value, keys, key in names)
        for key, value in content.items()
        if (inside and key not in names) or key in keys
    }


def _first_difference(old: Any, new: Any, place: str = "") -> str:
    """Where two JSON values differ first; empty if they are equal. NaN equals NaN."""
    if isinstance(old, dict) and isinstance(new, dict):
        if old.keys() != new.keys():
            return f"{place or 'top'}: keys differ: {sorted(old.keys() ^ new.keys())}"
        pairs = [(old[key], new[key], f"{place}.{key}".lstrip(".")) for key in old]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [
            (before, after, f"{place}[{index}]") for index, (before, after) in enumerate(zip(old, new, strict=True))
        ]
    else:
        both_nan = isinstance(old, float) and isinstance(new, float) and math.isnan(old) and math.isnan(new)
        return "" if old == new or both_nan else f"{place}: {old!r} and {new!r}"
    return next((difference for pair in pairs if (difference := _first_difference(*pair))), "")


@click.command()
@click.argument("old", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("new", type=click.Path(path_type=Path, exists=True, file_okay=False))
def main(old: Path, new: Path) -> None:
    """Compare the artifacts OLD and NEW; exit code 1 if they differ."""
    rows = list(compare(old, new))
    different = [(name, difference) for name, difference in rows if difference]
    for name, difference in different:
        click.echo(f"{name}: {difference}")
    click.echo(f"{len(rows) - len(different)} of {len(rows)} equal")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
