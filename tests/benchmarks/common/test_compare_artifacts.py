"""Two artifacts that differ in one thing each: what counts as a difference, and what does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner
from helpers.described_folder import write_listed_manifest
from helpers.result_rows import make_prompt, make_results, make_sample
from onnx import TensorProto, helper

from edgepress.benchmarks.common.compare_artifacts import compare, main
from edgepress.evaluate.results.results_file import save_results
from edgepress.storage.manifest import Manifest

GRAPH, CONFIG, WEIGHTS = "onnx/transformer.onnx", "model/transformer/config.json", "model/transformer/a.safetensors"
CONFIG_CONTENT = {"width": 8, "loss": float("nan"), "quantization_config": {"dropped": ["head"]}}
RESULTS, MANIFEST = "evaluation/results.json", "manifest.json: layers and sizes"


def make_graph(operator: str, note: str) -> onnx.ModelProto:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    node = helper.make_node(operator, ["x"], ["y"], doc_string=note)
    node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=note)
    return helper.make_model(helper.make_graph([node], "graph", ports[:1], ports[1:]))


def make_manifest(error: float, key: str = "") -> Manifest:
    return Manifest(
        device="pi5",
        key=key,
        source="pipeline",
        recipe={},
        prompts_sha256="",
        sources=[],
        files=[],
        layers=[{"layer": "a", "steps": {"rtn": error}}],
        num_unquantized=0,
        sizes={},
        size_savings={},
        fp16_overflows=[],
        versions={"torch": key},
    )


def save_json(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), "utf-8")


def save_samples(artifact: Path, psnr: float, **changes: Any) -> None:
    save_results(make_results([make_sample(make_prompt("a"), psnr)], **changes), artifact / RESULTS)


@pytest.fixture
def artifacts(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal artifacts."""
    old, new = tmp_path / "old", tmp_path / "new"
    save_json(old / CONFIG, CONFIG_CONTENT)
    (old / WEIGHTS).write_bytes(b"weights")
    (old / GRAPH).parent.mkdir()
    onnx.save(make_graph("Neg", "module a"), str(old / GRAPH))
    (old / "rknn").mkdir()
    (old / "rknn" / "part.rknn").write_bytes(b"built")
    save_samples(old, 30.0)
    write_listed_manifest(make_manifest(0.5), old)
    shutil.copytree(old, new)
    return old, new


def find_differences(old: Path, new: Path) -> dict[str, str]:
    return {name: difference for name, difference in compare(old, new) if difference}


EQUAL: dict[str, Callable[[Path], object]] = {
    "formatting": lambda new: (new / CONFIG).write_text(json.dumps(CONFIG_CONTENT, indent=4)),
    "a renamed key": lambda new: save_json(
        new / CONFIG, CONFIG_CONTENT | {"quantization_config": {"unused_modules": ["head"]}}
    ),
    "a measurement": lambda new: save_json(new / CONFIG, CONFIG_CONTENT | {"memory": 5, "path": "/elsewhere"}),
    "notes at nodes": lambda new: onnx.save(make_graph("Neg", "module b"), str(new / GRAPH)),
    "what a toolkit built": lambda new: (new / "rknn" / "part.rknn").write_bytes(b"built again"),
    "times of a run": lambda new: save_samples(new, 30.0, stage_seconds={"generating": 9.0}),
    "versions": lambda new: write_listed_manifest(make_manifest(0.5, "2.9"), new),
    "a report": lambda new: (new / "evaluation" / "report.html").touch(),
}
DIFFERENT: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "weights": (lambda new: (new / WEIGHTS).write_bytes(b"Weights"), WEIGHTS, "differs"),
    "a missing file": (lambda new: (new / WEIGHTS).unlink(), WEIGHTS, "only in the old one"),
    "a new file": (lambda new: (new / "model" / "b").touch(), "model/b", "only in the new one"),
    "an operator": (lambda new: onnx.save(make_graph("Abs", "module a"), str(new / GRAPH)), GRAPH, "differs"),
    "a value": (lambda new: save_json(new / CONFIG, CONFIG_CONTENT | {"width": 9}), CONFIG, "width: 8 and 9"),
    "a number for NaN": (
        lambda new: save_json(new / CONFIG, CONFIG_CONTENT | {"loss": 1.0}),
        CONFIG,
        "loss: nan and 1.0",
    ),
    "a key": (lambda new: save_json(new / CONFIG, CONFIG_CONTENT | {"depth": 9}), CONFIG, "keys differ: ['depth']"),
    "an entry of a list": (
        lambda new: save_json(new / CONFIG, CONFIG_CONTENT | {"quantization_config": {"dropped": ["tail"]}}),
        CONFIG,
        "quantization_config.unused_modules[0]: 'head' and 'tail'",
    ),
    "a score's last digit": (lambda new: save_samples(new, 30.000000000000004), RESULTS, "30.0 and 30.000000000000004"),
    "no results": (lambda new: (new / RESULTS).unlink(), RESULTS, "only one has it"),
    "a layer's error": (lambda new: write_listed_manifest(make_manifest(0.25), new), MANIFEST, "0.5 and 0.25"),
    "no manifest": (lambda new: (new / "manifest.json").unlink(), MANIFEST, "one has no manifest"),
}


@pytest.mark.parametrize("change", EQUAL)
def test_what_differs_from_run_to_run_is_no_difference(artifacts: tuple[Path, Path], change: str) -> None:
    EQUAL[change](artifacts[1])
    assert find_differences(*artifacts) == {}


@pytest.mark.parametrize("change", DIFFERENT)
def test_one_difference_is_found_and_no_other(artifacts: tuple[Path, Path], change: str) -> None:
    make_change, name, difference = DIFFERENT[change]
    make_change(artifacts[1])
    differences = find_differences(*artifacts)
    assert list(differences) == [name]
    assert difference in differences[name]


def test_the_exit_code_says_whether_they_differ(artifacts: tuple[Path, Path]) -> None:
    arguments = list(map(str, artifacts))
    equal = CliRunner().invoke(main, arguments)
    assert (equal.exit_code, equal.stdout) == (0, "5 of 5 equal\n")  # the part of the toolkit is not compared
    (artifacts[1] / WEIGHTS).write_bytes(b"Weights")
    different = CliRunner().invoke(main, arguments)
    assert (different.exit_code, different.stdout) == (1, f"{WEIGHTS}: differs\n4 of 5 equal\n")
