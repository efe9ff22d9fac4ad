"""The description of an artifact: what it says, what is found where it is wrong, and its schemas."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import bench_results
from helpers.previous_artifact import extract_previous_artifact
from helpers.published_artifact import publish_model, publish_onnx, record_model, write_published_artifact
from helpers.result_rows import PSNR, make_prompt, make_results, make_sample

import edgepress
from edgepress.api.comparison import ArtifactComparison
from edgepress.api.verification import verify
from edgepress.cli.main import main
from edgepress.common.errors import UserError
from edgepress.evaluate.results.gates import DEFECTS_GATE, GateSpec, evaluate_gates
from edgepress.evaluate.results.results_file import save_results
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.recipes.loader import load_recipe
from edgepress.runtime.memory_need import read_memory_need
from edgepress.storage.artifact_schema import SCHEMA_FILE, read_description, render_schema
from edgepress.storage.emulation import EmulatedGraph, EmulationResults, write_emulation
from edgepress.storage.files import hash_file
from edgepress.storage.layout import DOCUMENT_NAMES, Artifact
from edgepress.storage.outdated_results import digest_published

CYCLONEDX = Path(edgepress.__file__).resolve().parent / "build" / "cyclonedx"  # that `make test` installs
VALIDATE = """
import json, sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from jsonschema import Draft202012Validator
sbom, schema, description = (open(path, encoding="utf-8").read() for path in sys.argv[1:])
errors = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom)
assert errors is None, errors
Draft202012Validator.check_schema(json.loads(schema))
Draft202012Validator(json.loads(schema)).validate(json.loads(description))
"""


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests must not change it."""
    artifact = write_published_artifact(tmp_path_factory.mktemp("described") / "artifact")
    edgepress.describe(artifact.path, license="apache-2.0")
    return artifact.path


@pytest.fixture
def artifact(described: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(described, tmp_path / "artifact"))


def find(artifact: Path) -> dict[str, str]:
    return {problem.path: str(problem.status) for problem in verify(artifact, run=False).problems}


def test_it_says_what_the_parts_record(described: Path) -> None:
    description = read_description(Artifact(described))
    assert (description.device, description.source.license) == ("custom", "apache-2.0")
    assert set(description.components) == {"model", "onnx"}
    onnx = description.components["onnx"]
    assert onnx.status == "simulated"
    assert onnx.bytes == sum((described / file.path).stat().st_size for file in onnx.files)
    assert onnx.graphs["caption"].relative_error == 1e-6
    assert {file.path for file in description.documents} == {"README.md", "sbom.cdx.json"}
    card = (described / "README.md").read_text("utf-8")
    assert card.startswith("---\nlibrary_name: edgepress\n")
    assert "**simulated**" in card


@pytest.mark.slow
@pytest.mark.parametrize(("device", "has_memory"), [("x86", False), ("pi5", True)])
def test_what_graphs_take_is_planned_for_machines_of_any_memory(device: str, has_memory: bool, tmp_path: Path) -> None:
    artifact = write_published_artifact(tmp_path / "artifact")
    shutil.copytree(DEMO_PIPELINE, artifact.model, dirs_exist_ok=True)
    recipe = load_recipe(device).model_dump(mode="json", exclude={"device"})
    record_model(artifact, device=device, recipe=recipe)
    publish_onnx(artifact)
    edgepress.describe(artifact.path)
    plan = read_description(artifact).memory_plan
    assert plan
    assert 0 < plan.phased_bytes < plan.resident_bytes
    assert (plan.verdict, plan.usable_bytes is None) == (("fits", False) if has_memory else (None, True))
    assert read_memory_need(artifact.onnx).resident_bytes == plan.resident_bytes
    card = (artifact.path / "README.md").read_text("utf-8")
    assert ("On the device it fits, estimated: " if has_memory else "Memory, estimated: ") in card
    assert ("MB can be used." in card) is has_memory


def write_emulated(artifact: Path, error: float, sha256: str | None) -> None:
    graphs = {"caption": EmulatedGraph(relative_error=error, limit=2e-2)}
    emulation = EmulationResults(
        processor="cortex-a76", engine="ONNX Runtime 1", onnx_sha256=str(sha256), graphs=graphs, image_psnr=(None, 59.8)
    )
    write_emulation(emulation, Artifact(artifact))


def test_an_export_that_ran_in_an_emulator_is_emulated(artifact: Path) -> None:
    digest = digest_published(artifact / "onnx")
    for error, sha256, status in ((1e-2, digest, "emulated"), (3e-2, digest, "simulated"), (1e-2, "0", "simulated")):
        write_emulated(artifact, error, sha256)
        description = edgepress.describe(artifact)
        assert description.components["onnx"].status == status
    write_emulated(artifact, 1e-2, digest)
    reason = edgepress.describe(artifact).components["onnx"].reason
    assert "with instructions of a cortex-a76 under qemu (ONNX Runtime 1), never run on the device" in reason
    assert verify(artifact, run=False).passed
    (artifact / "bench" / "emulation.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"emulation\.json is damaged: .* Emulate the artifact again, or remove the file\."
    ):
        edgepress.describe(artifact)


def test_an_evaluation_is_described_by_its_means(artifact: Path) -> None:
    samples = [make_sample(make_prompt("a"), 40.0, texts=(1, 1)), make_sample(make_prompt("b"), 44.0, texts=(1, 0.5))]
    results = make_results(samples)
    gates = evaluate_gates("int4", results.variants["int4"], [GateSpec(DEFECTS_GATE, "defects", PSNR, limit=-1)])
    results = results.model_copy(update={"gates": gates, "verdict": "failed"})
    file = artifact / "evaluation" / "results.json"
    save_results(results, file)
    content = json.loads(file.read_text("utf-8"))
    content["identity"]["variants"]["int4"]["folder"]["sha256"] = digest_published(artifact / "model")
    file.write_text(json.dumps(content), "utf-8")
    evaluation = edgepress.describe(artifact).evaluation
    assert evaluation is not None
    assert (evaluation.verdict, evaluation.num_prompts) == ("failed", 2)
    assert evaluation.scores == {"int4": {"psnr": 42.0, "flip": 0.0, "text_accuracy": 0.75, "exact": 0.5}}
    card = (artifact / "README.md").read_text("utf-8")
    assert "Evaluation over 2 prompts: failed." in card
    assert "int4: psnr 42, flip 0, text_accuracy 0.75" in card


@pytest.mark.parametrize("text", ["{}", '{"schema_version": 1e999}', ""])
@pytest.mark.parametrize("name", ["evaluation/results.json", "bench/bench.json"])
def test_damaged_results_are_named(artifact: Path, name: str, text: str) -> None:
    (artifact / name).parent.mkdir()
    (artifact / name).write_text(text)
    with pytest.raises(UserError, match=rf"{name} .*(Evaluate again|Run .edgepress (bench|evaluate). again)"):
        edgepress.describe(artifact)


def test_a_benchmark_of_a_newer_release_is_refused(artifact: Path) -> None:
    results = bench_results.make_results(2).model_dump(mode="json") | {"schema_version": 99}
    (artifact / "bench").mkdir()
    (artifact / "bench" / "bench.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match=r"bench/bench.json is damaged \(schema_version = 99: it must be at most 2\)"):
        edgepress.describe(artifact)


def test_an_artifact_passes_with_its_description_and_is_listed_for_sha256sum(described: Path) -> None:
    assert find(described) == {}
    result = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=described, capture_output=True, text=True, check=True
    )
    assert all(f"{name}: OK" in result.stdout for name in DOCUMENT_NAMES)


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", DOCUMENT_NAMES)
@pytest.mark.parametrize(
    ("change", "status"),
    [
        (flip, "changed"),
        (Path.unlink, "missing"),
        (lambda file: (file.unlink(), file.symlink_to("/etc/hostname")), "link"),
    ],
)
def test_whatever_happens_to_a_document_is_found(
    artifact: Path, name: str, change: Callable[[Path], object], status: str
) -> None:
    change(artifact / name)
    assert find(artifact) == {name: status}


@pytest.mark.parametrize("name", ["README.md", "sbom.cdx.json"])
def test_the_users_own_files_stay(name: str, tmp_path: Path) -> None:
    artifact = write_published_artifact(tmp_path / "artifact")
    (artifact.path / name).write_text("my notes")
    with pytest.raises(UserError, match=rf"{name} was not made by edgepress\. Move it to another place\."):
        edgepress.describe(artifact.path)
    assert (artifact.path / name).read_text() == "my notes"
    assert not artifact.description.exists()


@pytest.mark.parametrize(
    ("license", "message"),
    [
        ("mit\nevil: yes", "is no identifier of a licence"),
        ("GPL: [x", "is no identifier of a licence"),
        ("", "license = '': it must not be empty"),
    ],
)
def test_a_licence_is_an_identifier(license: str, message: str, artifact: Path) -> None:  # noqa: A002
    with pytest.raises(UserError, match=message):
        edgepress.describe(artifact, license)


def test_an_earlier_description_is_stale_where_the_model_was_made_again(artifact: Path) -> None:
    publish_model(Artifact(artifact), b"2")
    lines = [line for line in (artifact / "SHA256SUMS").read_text().splitlines() if not line.endswith(DOCUMENT_NAMES)]
    (artifact / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    assert find(artifact)["artifact.json"] == "stale"
    publish_onnx(Artifact(artifact))
    edgepress.describe(artifact)
    assert find(artifact) == {}


def test_a_newer_schema_is_refused(artifact: Path) -> None:
    file = artifact / "artifact.json"
    file.write_text(file.read_text("utf-8").replace('"schema_version": 1,', '"schema_version": 2,', 1), "utf-8")
    with pytest.raises(UserError, match="has schema version 2, but this edgepress reads version 1: a newer edgepress"):
        read_description(Artifact(artifact))


def test_a_path_that_leaves_the_folder_is_refused(artifact: Path) -> None:
    file = artifact / "artifact.json"
    file.write_text(file.read_text("utf-8").replace('"path": "README.md"', '"path": "../README.md"', 1), "utf-8")
    with pytest.raises(UserError, match=r"artifact\.json is corrupt: documents\.0\.path"):
        read_description(Artifact(artifact))


def test_parts_that_were_replaced_since_are_named_until_it_is_described_again(artifact: Path) -> None:
    publish_model(Artifact(artifact), b"2")  # writes SHA256SUMS without the description
    publish_onnx(Artifact(artifact))
    assert find(artifact)["artifact.json"] in ("changed", "stale")
    edgepress.describe(artifact)
    assert find(artifact) == {}


def test_two_builds_are_equal_and_name_no_place(tmp_path: Path) -> None:
    folders = [write_published_artifact(tmp_path / name / "artifact").path for name in ("a", "b")]
    for folder in folders:
        edgepress.describe(folder)
    for name in (*DOCUMENT_NAMES, "SHA256SUMS"):
        contents = {(folder / name).read_bytes() for folder in folders}
        assert len(contents) == 1
        assert str(tmp_path).encode() not in contents.pop()


def test_the_shipped_schema_is_that_of_the_model() -> None:
    assert SCHEMA_FILE.read_text("utf-8") == render_schema(), "run make docs-reference"


@pytest.mark.skipif(not CYCLONEDX.is_dir(), reason="cyclonedx is not installed in build/; make test installs it")
def test_documents_are_valid_by_the_official_schema_and_by_the_shipped_one(described: Path) -> None:
    files = [described / "sbom.cdx.json", SCHEMA_FILE, described / "artifact.json"]
    environment = os.environ | {"PYTHONPATH": str(CYCLONEDX)}
    command = [sys.executable, "-c", VALIDATE, *map(str, files)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


# ---------------------------------------------------------------- comparing artifacts


def test_equal_artifacts_have_no_differences(described: Path, artifact: Path) -> None:
    assert edgepress.diff(described, artifact).is_equal
    result = CliRunner().invoke(main, ["diff", str(described), str(artifact)])
    assert (result.exit_code, result.stdout) == (0, "Equal: the same files, settings, versions and results.\n")


def test_differences_are_files_and_values(described: Path, artifact: Path) -> None:
    publish_model(Artifact(artifact), b"2")
    (artifact / "onnx" / "extra.bin").write_bytes(b"1")
    publish_onnx(Artifact(artifact), precision="fp32")
    comparison = edgepress.diff(described, artifact)
    assert comparison.added == ("onnx/extra.bin",)
    assert comparison.changed == ("model/vae/model.safetensors",)
    assert comparison.values["components.onnx.precision"] == ("int4", "fp32")
    result = CliRunner().invoke(main, ["diff", str(described), str(artifact), "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["removed"] == []
    assert "+ onnx/extra.bin" in str(comparison)
    assert 'components.onnx.precision: "int4" -> "fp32"' in str(comparison)


def test_what_one_artifact_lacks_is_called_none() -> None:
    values = {"evaluation.psnr": (None, 41.5), "versions": ({"torch": "2.13.0"}, None)}
    assert str(ArtifactComparison((), (), (), values)) == (
        'evaluation.psnr: none -> 41.5\nversions: {"torch": "2.13.0"} -> none'
    )


def test_the_command_says_the_status_of_each_part(artifact: Path) -> None:
    result = CliRunner().invoke(main, ["describe", str(artifact)])
    assert result.exit_code == 0, result.output
    assert "onnx: simulated" in result.stdout


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("components/model/bytes", 7, r"components\.model\.bytes is 7, not"),
        ("components/onnx/status", "verified", r"components\.onnx\.status is 'verified', not 'simulated'"),
        ("components/onnx/graphs/caption/relative_error", 0.5, r"relative_error is 0\.5, not 1e-06"),
        ("pipeline_class", "X", r"pipeline_class is 'X', not 'ZImagePipeline'"),
        ("quantization", None, "quantization is nothing, not 4 entries"),
        ("components/onnx/bytes", -1, r"corrupt: components\.onnx\.bytes = -1: it must be at least 0"),
    ],
)
def test_a_description_of_something_else_is_a_problem(artifact: Path, path: str, value: object, message: str) -> None:
    """Also one that SHA256SUMS lists."""
    edgepress.describe(artifact)
    content = json.loads((artifact / "artifact.json").read_text("utf-8"))
    *parents, last = path.split("/")
    part = content
    for name in parents:
        part = part[name]
    part[last] = value
    (artifact / "artifact.json").write_text(json.dumps(content))
    lines = (artifact / "SHA256SUMS").read_text("utf-8").splitlines()
    sha256 = hash_file(artifact / "artifact.json")
    lines = [f"{sha256}  artifact.json" if line.endswith("  artifact.json") else line for line in lines]
    (artifact / "SHA256SUMS").write_text("\n".join(lines) + "\n")
    (problem,) = verify(artifact, run=False).problems
    assert problem.path == "artifact.json"
    assert re.search(message, f"{problem.status}: {problem.reason}")


def test_weights_that_were_not_copied_to_a_board_are_named(artifact: Path) -> None:
    shutil.rmtree(artifact / "model")
    report = edgepress.verify(artifact, run=False)
    assert (report.passed, report.absent) == (True, ("model",))
    assert f"{artifact / 'model'} is described and not there" in str(report)
    (artifact / "README.md").unlink()
    assert find(artifact) == {"README.md": "missing"}


def test_a_description_beside_a_changed_manifest_cannot_be_compared(artifact: Path) -> None:
    with (artifact / "manifest.json").open("ab") as file:
        file.write(b" ")
    problems = {problem.path: problem.reason for problem in verify(artifact, run=False).problems}
    assert problems["artifact.json"].startswith(
        f"cannot be compared: {artifact / 'manifest.json'} was changed: its SHA"
    )


def test_graphs_that_are_described_must_be_there(artifact: Path) -> None:
    shutil.rmtree(artifact / "onnx")
    assert find(artifact) == {"artifact.json": "stale"}


def test_an_artifact_of_an_earlier_release_passes_once_it_is_described(tmp_path: Path) -> None:
    """Earlier releases wrote no SHA256SUMS of the model."""
    artifact = extract_previous_artifact(tmp_path)
    assert not (artifact / "SHA256SUMS").exists()
    edgepress.describe(artifact)
    assert edgepress.verify(artifact).problems == ()
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=artifact, check=True)
    weights = next((artifact / "model").glob("transformer/*.safetensors"))
    assert f"model/transformer/{weights.name}" in (artifact / "SHA256SUMS").read_text("utf-8")
