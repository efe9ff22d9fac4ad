"""Signatures with real keys: what is signed cannot be changed unnoticed, what is measured can."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.published_artifact import write_published_artifact

import edgepress

SIGNING = Path(edgepress.__file__).resolve().parent / "build" / "model_signing"  # that `make test` installs
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SIGNING.is_dir(), reason="model-signing is not installed in build/; make test installs it"),
]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    paths = [os.environ.get("PYTHONPATH", ""), str(SIGNING)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "edgepress", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs of keys, a and b, that openssl made."""
    folder = tmp_path_factory.mktemp("keys")
    for name in "ab":
        private, public = folder / f"{name}.pem", folder / f"{name}.pub"
        subprocess.run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private], check=True)
        subprocess.run(["openssl", "ec", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def signed(keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    artifact = write_published_artifact(tmp_path_factory.mktemp("signed") / "artifact").path
    result = run("sign", artifact, "--key", keys / "a.pem")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"Signed: {artifact / 'artifact.sig'}\n"
    return artifact


def test_a_copy_passes_with_the_right_key_alone(signed: Path, keys: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(signed, tmp_path / "board"))
    (copy / "evaluation").mkdir()
    (copy / "evaluation" / "results.txt").write_text("measured later")
    passed = run("verify", copy, "--no-run", "--public-key", keys / "a.pub")
    assert passed.returncode == 0, passed.stderr + passed.stdout
    refused = run("verify", copy, "--no-run", "--public-key", keys / "b.pub")
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"Error: {copy} is not what the owner of {keys / 'b.pub'} signed")
    assert refused.stderr.count("\n") == 1


def test_a_changed_or_added_file_is_found(signed: Path, keys: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(signed, tmp_path / "board"))
    (copy / "onnx" / "added").touch()
    result = run("verify", copy, "--public-key", keys / "a.pub")
    assert (result.returncode, "is not what the owner" in result.stderr) == (2, True)
    (copy / "onnx" / "added").unlink()
    (copy / "manifest.json").write_text("{}")
    assert run("verify", copy, "--public-key", keys / "a.pub").returncode == 2


def test_what_differs_is_named_and_a_part_that_was_not_copied_too(signed: Path, keys: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(signed, tmp_path / "board"))
    with (copy / "onnx" / "pipeline.json").open("ab") as file:
        file.write(b" ")
    result = run("verify", copy, "--no-run", "--public-key", keys / "a.pub")
    assert result.stderr == (
        f"Error: {copy} is not what the owner of {keys / 'a.pub'} signed (changed: onnx/pipeline.json). Copy it again, "
        "or check the key.\n"
    )
    shutil.rmtree(copy / "model")
    (copy / "board.sig").unlink()
    result = run("verify", copy, "--no-run", "--public-key", keys / "a.pub")
    assert (
        "(missing: model/model_index.json, model/vae/model.safetensors; changed: onnx/pipeline.json)" in result.stderr
    )
    assert "Copy board.sig as well, which is of what boards need. Copy it again" in result.stderr


def test_a_copy_of_what_a_board_needs_passes_and_no_changed_one(signed: Path, keys: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(signed, tmp_path / "board", ignore=shutil.ignore_patterns("model")))
    passed = run("verify", copy, "--no-run", "--public-key", keys / "a.pub")
    assert passed.returncode == 0, passed.stderr + passed.stdout
    refused = run("verify", copy, "--no-run", "--public-key", keys / "b.pub")
    assert refused.returncode == 2
    (copy / "gguf").mkdir()  # weights that boards do not need are signed with all others
    result = run("verify", copy, "--no-run", "--public-key", keys / "a.pub")
    assert "missing: model/" in result.stderr
    (copy / "gguf").rmdir()
    with (copy / "onnx" / "pipeline.json").open("ab") as file:
        file.write(b" ")
    result = run("verify", copy, "--no-run", "--public-key", keys / "a.pub")
    assert "(changed: onnx/pipeline.json)" in result.stderr


def test_what_was_exported_without_a_model_is_signed_whole(keys: Path, tmp_path: Path) -> None:
    artifact = write_published_artifact(tmp_path / "artifact").path
    shutil.rmtree(artifact / "model")
    for name in ("manifest.json", "SHA256SUMS"):
        (artifact / name).unlink(missing_ok=True)
    assert run("sign", artifact, "--key", keys / "a.pem").returncode == 0
    assert not (artifact / "board.sig").exists()
    passed = run("verify", artifact, "--no-run", "--public-key", keys / "a.pub")
    assert passed.returncode == 0, passed.stderr + passed.stdout


def test_what_cannot_be_signed_or_checked_is_one_sentence(signed: Path, keys: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("no key")
    plain = write_published_artifact(tmp_path / "plain").path
    for arguments, text in (
        (("sign", plain, "--key", tmp_path / "absent.pem"), "There is no key"),
        (("sign", plain, "--key", tmp_path / "text.pem"), "cannot be signed with"),
        (("sign", tmp_path, "--key", keys / "a.pem"), "Give an artifact that edgepress made"),
        (("verify", plain, "--public-key", keys / "a.pub"), "has no signature"),
        (("verify", signed, "--public-key", tmp_path / "text.pem"), "is not what the owner"),
    ):
        result = run(*arguments)
        assert result.returncode == 2, result.stderr
        assert text in result.stderr
        assert result.stderr.count("\n") == 1
    assert not (plain / "artifact.sig").exists()
