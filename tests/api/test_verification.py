"""Verifying an artifact: whatever is changed, removed, added or left over is found, and where it is."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.published_artifact import (
    WEIGHTS,
    publish_model,
    publish_onnx,
    write_gguf_export,
    write_golden,
    write_published_artifact,
)

import edgepress
from edgepress.api.verification import VerificationReport, to_dict, verify
from edgepress.common.errors import UserError
from edgepress.evaluate.results.folder_identity import hash_folder
from edgepress.runtime.verification import digest_export
from edgepress.storage.checksums import write_checksums
from edgepress.storage.files import record_file
from edgepress.storage.layout import Artifact
from edgepress.storage.outdated_results import digest_published, find_outdated_results
from edgepress.storage.pipeline_config import read_onnx_config
from edgepress.storage.published_model import read_published_model
from edgepress.storage.result_checksums import record_results

FILES = (
    "SHA256SUMS",
    "manifest.json",
    "model/model_index.json",
    "model/vae/model.safetensors",
    "onnx/SHA256SUMS",
    "onnx/pipeline.json",
    f"onnx/{WEIGHTS}",
    "onnx/caption.onnx",
    "onnx/transformer.onnx",
    "onnx/golden/caption.npz",
    "onnx/tokenizer/tokenizer.json",
    "onnx/tokenizer/chat_template.jinja",
)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests must not change it."""
    return write_published_artifact(tmp_path_factory.mktemp("published") / "artifact").path


@pytest.fixture
def artifact(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "artifact"))


def statuses(report: VerificationReport) -> dict[str, str]:
    return {problem.path: str(problem.status) for problem in report.problems}


def flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


@pytest.mark.slow
def test_an_intact_artifact_passes(artifact: Path) -> None:
    report = edgepress.verify(artifact)
    assert report.passed
    assert {(folder.name, folder.is_hashed) for folder in report.folders} == {("model", True), ("onnx", True)}
    assert str(report).endswith("Verified: every file is as it was published.")
    assert json.loads(json.dumps(to_dict(report)))["passed"]
    files = [file for file in (artifact / "onnx").rglob("*") if file.is_file()]
    assert report.folders[1].files == len(files) - 2  # all but pipeline.json and SHA256SUMS


@pytest.mark.parametrize("position", [0, 0.5, -1])
@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_any_file_is_found(artifact: Path, name: str, position: float) -> None:
    size = (artifact / name).stat().st_size
    flip(artifact / name, int(size * position) if position > 0 else int(position))
    problems = statuses(verify(artifact))
    assert problems
    assert all(path.startswith(name.split("/")[0]) or name == "SHA256SUMS" for path in problems)


@pytest.mark.parametrize("name", FILES)
def test_a_removed_file_is_found(artifact: Path, name: str) -> None:
    (artifact / name).unlink()
    assert name in statuses(verify(artifact))


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_found(artifact: Path, name: str) -> None:
    os.truncate(artifact / name, (artifact / name).stat().st_size // 2)
    assert statuses(verify(artifact))


@pytest.mark.parametrize("name", ["model/extra.safetensors", "onnx/extra.onnx", "onnx/golden/x/y", "extra"])
def test_an_added_file_is_found(artifact: Path, name: str) -> None:
    (artifact / name).parent.mkdir(exist_ok=True)
    (artifact / name).write_bytes(b"x")
    assert statuses(verify(artifact))[name] in ("added", "corrupt")


def test_engines_that_were_built_on_a_board_are_no_change(artifact: Path) -> None:
    digests = digest_export(artifact), hash_folder(artifact / "onnx").sha256
    assert digests == (digest_published(artifact / "onnx"),) * 2
    (artifact / "onnx" / "engines").mkdir()
    for name in ("caption.engine", "timing.cache"):
        (artifact / "onnx" / "engines" / name).write_bytes(b"built")
    assert verify(artifact).passed
    assert (digest_export(artifact), hash_folder(artifact / "onnx").sha256) == digests


def link_to_blobs(artifact: Path, blobs: Path) -> None:
    """Puts files into a store and links in their places."""
    blobs.mkdir(parents=True)
    for number, name in enumerate(FILES):
        (artifact / name).rename(blobs / str(number))
        (artifact / name).symlink_to(blobs / str(number))


def test_links_of_the_hub_pass_if_they_lead_to_what_was_published(artifact: Path, tmp_path: Path) -> None:
    """In its cache every file is a link to one of the same repository that is named by its hash."""
    cached, blobs = tmp_path / "repository" / "snapshots" / "1a2b", tmp_path / "repository" / "blobs"
    cached.parent.mkdir(parents=True)
    artifact.rename(cached)
    link_to_blobs(cached, blobs)
    report = verify(cached)
    assert report.passed, str(report)
    assert [folder.links for folder in report.folders] == [2, 6]
    sentence = (
        f"Number of files of {cached / 'onnx'} that are links into the Hub's cache, to what has the recorded hash: "
    )
    assert f"{sentence}6." in str(report)
    flip(blobs / str(FILES.index(f"onnx/{WEIGHTS}")), -1)
    report = verify(cached)
    assert statuses(report) == {f"onnx/{WEIGHTS}": "link"}
    assert f"{sentence}5." in str(report)


def test_other_links_that_leave_the_artifact_fail_although_all_hashes_agree(artifact: Path, tmp_path: Path) -> None:
    link_to_blobs(artifact, tmp_path / "snapshots" / "blobs")
    report = verify(artifact)
    assert statuses(report) == dict.fromkeys(FILES, "link")
    assert (
        f"{FILES[0]}: link: it is a link to {tmp_path / 'snapshots' / 'blobs' / '0'}, out of the folder. Put what"
        in str(report)
    )
    inside = [name for name in FILES if name.startswith("onnx/")]
    assert statuses(verify(artifact / "onnx")) == dict.fromkeys(inside, "link")


def test_a_linked_folder_fails(artifact: Path, tmp_path: Path) -> None:
    (artifact / "onnx").rename(tmp_path / "graphs")
    (artifact / "onnx").symlink_to(tmp_path / "graphs")
    assert statuses(verify(artifact)) == {"onnx": "link"}


@pytest.mark.parametrize("name", ["evaluation/results.json", "bench/plan/bench.json", "timings.json"])
def test_results_and_settings_of_the_machine_are_compared_where_hashes_are_recorded(artifact: Path, name: str) -> None:
    file = artifact / name
    file.parent.mkdir(parents=True, exist_ok=True)
    with record_results(
        [file.name], file.parent, list_name="local.sha256" if file.parent == artifact else "SHA256SUMS"
    ):
        file.write_text("{}")
    assert verify(artifact).passed
    flip(file, 1)
    assert statuses(verify(artifact)) == {name: "changed"}
    file.unlink()
    assert statuses(verify(artifact)) == {name: "missing"}


def test_graphs_of_a_model_that_was_replaced_are_stale(artifact: Path) -> None:
    publish_model(Artifact(artifact), b"2")
    assert statuses(verify(artifact)) == {"onnx": "stale"}


@pytest.mark.parametrize(
    ("is_own", "content", "status", "reason"),
    [
        (True, b"1", {}, ""),
        (True, b"2", {"gguf": "stale", "onnx": "stale"}, "was replaced since"),
        (False, b"1", {"gguf": "stale"}, "is of unknown origin"),  # copied by hand, or made before the model
    ],
)
def test_weights_for_other_programs_belong_to_the_model_beside_them(
    artifact: Path, is_own: bool, content: bytes, status: dict[str, str], reason: str
) -> None:
    model = read_published_model(Artifact(artifact))
    assert model is not None
    write_gguf_export(artifact / "gguf", model.sha256 if is_own else "")
    publish_model(Artifact(artifact), content)
    assert statuses(verify(artifact)) == status
    assert reason in str(verify(artifact))


@pytest.mark.parametrize("name", ["manifest.json", "onnx/pipeline.json"])
def test_a_newer_schema_fails_with_what_to_do(artifact: Path, name: str) -> None:
    file = artifact / name
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": 99}))
    assert statuses(verify(artifact))[name] == "corrupt"
    assert "Upgrade edgepress." in str(verify(artifact))


@pytest.mark.parametrize("path", ["../../outside", "/etc/passwd"])
def test_a_path_that_leaves_the_folder_fails_although_all_hashes_agree(artifact: Path, path: str) -> None:
    file = artifact / "onnx" / "pipeline.json"
    content = json.loads(file.read_text())
    content["graphs"]["caption"]["file"] = path
    file.write_text(json.dumps(content))
    write_checksums([record_file(file.parent, "pipeline.json")], file.parent)
    assert "is not a path below this folder" in str(verify(artifact))
    with pytest.raises(UserError, match="is not a path below this folder"):
        edgepress.ImagePipeline(artifact)


@pytest.mark.slow
def test_weights_that_a_graph_reads_from_elsewhere_fail_although_all_hashes_agree(artifact: Path) -> None:
    graph = artifact / "onnx" / "caption.onnx"
    graph.write_bytes(graph.read_bytes().replace(WEIGHTS.encode(), ("../" + "x" * (len(WEIGHTS) - 3)).encode()))
    publish_onnx(Artifact(artifact))
    assert statuses(verify(artifact)) == {"onnx/caption.onnx": "corrupt"}


def test_a_folder_of_an_artifact_is_verified_alone(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (artifact / "extra").touch()
    flip(artifact / "model" / "model_index.json", 0)
    assert verify(artifact / "onnx").passed
    assert not verify(artifact / "model").passed
    monkeypatch.chdir(artifact / "onnx")
    assert [folder.name for folder in verify(".").folders] == ["onnx"]


def test_an_export_without_hashes_passes_with_a_statement(artifact: Path) -> None:
    old = {"files": [], "model_sha256": None}
    file = artifact / "onnx" / "pipeline.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | old))
    (artifact / "onnx" / "SHA256SUMS").unlink()
    report = verify(artifact)
    assert report.passed
    assert "onnx holds no hashes, since an earlier release exported it" in str(report)
    (artifact / "onnx" / "transformer.onnx").unlink()
    assert not verify(artifact).passed


@pytest.mark.slow
def test_graphs_are_run_on_golden_inputs(artifact: Path) -> None:
    assert verify(artifact, run=True).passed
    shutil.rmtree(artifact / "onnx" / "golden")
    write_golden(artifact / "onnx" / "golden", factor=1.01)
    publish_onnx(Artifact(artifact))
    assert statuses(verify(artifact, run=False)) == {}
    assert statuses(verify(artifact)) == {"onnx/caption": "different outputs"}


def write_results(artifact: Path, measured: Path, digest: str | None) -> None:
    folder: dict[str, Any] = {"path": str(measured), "sha256": digest}
    content = {"identity": {"variants": {"int4": {"folder": folder}}}}
    for file, text in {"evaluation/results.json": content, "bench/bench.json": {"artifact_sha256": digest}}.items():
        (artifact / file).parent.mkdir()
        (artifact / file).write_text(json.dumps(text))


@pytest.mark.slow
def test_results_of_other_files_are_said_to_be_outdated(artifact: Path) -> None:
    write_results(artifact, artifact / "onnx", digest_published(artifact / "onnx"))
    assert verify(artifact).outdated == ()
    publish_model(Artifact(artifact), b"2")
    publish_onnx(Artifact(artifact))
    report = verify(artifact)
    assert report.passed
    assert {file.name for file in report.outdated} == {"results.json", "bench.json"}
    assert "was measured of other files than are there now. Measure again." in str(report)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["renamed", "artifact-2"])
def test_results_of_a_replaced_model_are_outdated_in_a_renamed_artifact_too(artifact: Path, name: str) -> None:
    write_results(artifact, artifact / "onnx", digest_published(artifact / "onnx"))
    renamed = artifact.rename(artifact.with_name(name))
    assert find_outdated_results(Artifact(renamed)) == []
    publish_model(Artifact(renamed), b"2")
    publish_onnx(Artifact(renamed))
    assert {file.name for file in verify(renamed).outdated} == {"results.json", "bench.json"}
    description = edgepress.describe(renamed)
    assert description.evaluation is None
    assert description.components["model"].status == "estimated"


def test_a_candidate_of_another_artifact_beside_its_own_makes_results_not_outdated(artifact: Path) -> None:
    variants = {
        "ours": {"folder": {"path": "/elsewhere/a/model", "sha256": digest_published(artifact / "model")}},
        "theirs": {"folder": {"path": "/elsewhere/b/model", "sha256": "0" * 64}},
    }
    (artifact / "evaluation").mkdir()
    (artifact / "evaluation" / "results.json").write_text(json.dumps({"identity": {"variants": variants}}))
    assert find_outdated_results(Artifact(artifact)) == []


def test_a_bench_of_files_without_the_simulators_is_compared_with_them(artifact: Path) -> None:
    (artifact / "onnx" / "simulator").mkdir()
    (artifact / "onnx" / "simulator" / "part.npz").touch()
    publish_onnx(Artifact(artifact))
    shutil.rmtree(artifact / "onnx" / "simulator")
    write_results(artifact, artifact / "onnx", digest_export(artifact))
    assert find_outdated_results(Artifact(artifact)) == []


def test_a_bench_of_an_export_without_hashes_is_not_said_to_be_outdated(artifact: Path) -> None:
    write_results(artifact, artifact / "onnx", digest_export(artifact))
    file = artifact / "onnx" / "pipeline.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"files": []}))
    (artifact / "onnx" / "SHA256SUMS").unlink()
    assert find_outdated_results(Artifact(artifact)) == []


MAKE: dict[str, Callable[[Path], object]] = {"empty": Path.mkdir, "file": Path.touch, "missing": lambda _: None}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_what_is_no_artifact_is_a_users_error(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "x")
    with pytest.raises(UserError, match=r"x (does not exist|is an empty folder|is a file)\. Give an artifact"):
        verify(tmp_path / "x")


def test_two_builds_of_the_same_inputs_are_equal_and_name_no_place(tmp_path: Path) -> None:
    first, second = (write_published_artifact(tmp_path / name / "artifact").path for name in ("a", "b"))
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes()
        assert str(tmp_path).encode() not in (first / name).read_bytes()
    assert read_onnx_config(first / "onnx").files
