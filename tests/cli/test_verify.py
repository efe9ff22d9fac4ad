"""`edgepress verify`, and what other commands do with files that are not as they were published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from helpers.published_artifact import WEIGHTS, publish_model, write_published_artifact

from edgepress.cli.main import main
from edgepress.storage.layout import Artifact


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return write_published_artifact(tmp_path / "artifact")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def generate(artifact: Artifact, *options: str) -> Result:
    image = artifact.path.parent / "image.png"
    return run("generate", artifact.path, "--prompt", "a", "--steps", 1, "--size", "32x32", "-o", image, *options)


def bench(artifact: Artifact) -> Result:
    output = artifact.path.parent / "bench"
    return run("bench", artifact.path, "--images", 1, "--steps", 1, "--size", "32x32", "-o", output)


def flip_last_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.slow
def test_exit_codes(artifact: Artifact, tmp_path: Path) -> None:
    result = run("verify", artifact.path)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "Verified: every file is as it was published.")
    flip_last_bit(artifact.onnx / WEIGHTS)
    result = run("verify", artifact.path)
    assert result.exit_code == 1
    assert f"onnx/{WEIGHTS}: changed: it was changed: it has another SHA-256" in result.stdout
    assert run("verify", tmp_path / "nowhere").exit_code == 2


@pytest.mark.slow
def test_the_report_as_json(artifact: Artifact) -> None:
    flip_last_bit(artifact.onnx / WEIGHTS)
    result = run("verify", artifact.path, "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["passed"]) == (1, False)
    assert [(problem["path"], problem["status"]) for problem in report["problems"]] == [(f"onnx/{WEIGHTS}", "changed")]


@pytest.mark.slow
def test_bench_and_generate_with_verify_refuse_a_flipped_bit(artifact: Artifact) -> None:
    assert generate(artifact, "--verify").exit_code == 0
    flip_last_bit(artifact.onnx / WEIGHTS)
    assert generate(artifact).exit_code == 0  # reads no hashes
    for result in (generate(artifact, "--verify"), bench(artifact)):
        assert result.exit_code == 2
        assert f"{WEIGHTS} was changed: it has another SHA-256. Make the folder again" in result.stderr


@pytest.mark.slow
def test_bench_records_what_it_measured(artifact: Artifact) -> None:
    assert bench(artifact).exit_code == 0
    results = json.loads((artifact.path.parent / "bench" / "bench.json").read_text())
    artifact.bench.mkdir()
    (artifact.bench / "bench.json").write_text(json.dumps(results))
    assert "Measure again" not in run("verify", artifact.path).stdout


def test_generate_always_refuses_truncated_weights_and_stale_graphs(artifact: Artifact) -> None:
    weights = artifact.onnx / WEIGHTS
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    assert "instead of" in generate(artifact).stderr
    weights.write_bytes(content)
    publish_model(artifact, b"2")
    result = generate(artifact)
    assert result.exit_code == 2
    assert "was exported from another model" in result.stderr
    assert "Run 'edgepress export onnx' again." in result.stderr


def test_weights_that_are_links_into_a_store_are_used(artifact: Artifact, tmp_path: Path) -> None:
    expected = generate(artifact) and (tmp_path / "image.png").read_bytes()
    (tmp_path / "blobs").mkdir()
    for number, file in enumerate(sorted(artifact.onnx.glob("*.*"))):
        blob = tmp_path / "blobs" / str(number)
        file.rename(blob)
        file.symlink_to(blob)
    assert generate(artifact).exit_code == 0
    assert (tmp_path / "image.png").read_bytes() == expected


def test_a_link_to_something_else_is_refused(artifact: Artifact, tmp_path: Path) -> None:
    weights = artifact.onnx / WEIGHTS
    secret = tmp_path / "secret"
    secret.write_bytes(weights.read_bytes())
    flip_last_bit(secret)
    weights.unlink()
    weights.symlink_to(secret)
    result = generate(artifact)
    assert result.exit_code == 2
    assert f"{WEIGHTS} is a link to {secret}, whose SHA-256 is not that of the file that was published" in result.stderr


def test_an_artifact_without_hashes_is_used_with_a_statement(artifact: Artifact) -> None:
    file = artifact.onnx / "pipeline.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"files": [], "model_sha256": None}))
    (artifact.onnx / "SHA256SUMS").unlink()
    assert "hashes" not in generate(artifact).stderr
    result = generate(artifact, "--verify")
    assert result.exit_code == 0
    assert "could not be checked: an earlier release exported them, without hashes" in result.stderr
