"""`edgepress serve`: options without effect are refused before the server starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.published_artifact import write_published_artifact

from edgepress.cli.main import main


@pytest.mark.parametrize("host", ["0.0.0.0", "board.local"])
def test_further_names_of_a_server_that_answers_to_every_name(host: str, tmp_path: Path) -> None:
    options = ("--allow-root", "--host", host, "--allowed-host", "b.local", "--state", str(tmp_path))
    result = CliRunner().invoke(main, ["serve", str(tmp_path), *options])
    assert result.exit_code == 2
    assert f"--allowed-host has no effect: a server on {host} answers to every name. Leave it out." in result.stderr


def test_a_changed_file_is_refused_before_the_server_starts(tmp_path: Path) -> None:
    """One that sizes and headers do not show, so that it takes hashes, which `--verify` compares."""
    artifact = write_published_artifact(tmp_path / "artifact")
    golden = artifact.onnx / "golden" / "caption.npz"
    content = bytearray(golden.read_bytes())
    content[len(content) // 2] ^= 1
    golden.write_bytes(content)
    options = ("--allow-root", "--verify", "--state", str(tmp_path))
    result = CliRunner().invoke(main, ["serve", str(artifact.path), *options])
    assert result.exit_code == 2
    assert f"{golden} was changed: it has another SHA-256" in result.stderr
