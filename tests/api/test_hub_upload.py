"""Uploads to a server that speaks the Hub's HTTP interface, through huggingface_hub itself."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers.hub_server import HubRepository, run_hub
from helpers.previous_artifact import extract_previous_artifact

import edgepress
from edgepress.api.hub_publishing import publish
from edgepress.cli.main import main

pytestmark = pytest.mark.slow
TOKEN = "hf_token"


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract_previous_artifact(tmp_path_factory.mktemp("upload"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubRepository]:
    """The repository of the server that huggingface_hub talks to. Large files go through Git LFS, not through Xet."""
    with run_hub(TOKEN) as (address, repository):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield repository


def test_every_byte_of_the_repository_arrives(hub: HubRepository, artifact: Path, tmp_path: Path) -> None:
    arguments = [
        "publish",
        str(artifact),
        "me/tiny",
        "--license",
        "mit",
        "--private",
        "--output",
        str(tmp_path / "out"),
    ]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert f"me/tiny: {len(hub.files) - 1} files" in result.stdout
    assert "/me/tiny" in result.stdout
    assert (hub.name, hub.is_private) == ("me/tiny", True)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert hub.files == {path.relative_to(tmp_path / "out").as_posix(): path.read_bytes() for path in files}
    assert "transformer/diffusion_pytorch_model.safetensors" in hub.large_files
    assert "README.md" not in hub.large_files


def test_what_arrives_is_an_artifact_that_verifies(hub: HubRepository, artifact: Path, tmp_path: Path) -> None:
    publish(artifact, "me/tiny", license="mit", folders=["model"])
    for name, content in hub.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert edgepress.verify(tmp_path, run=False).passed


@pytest.mark.parametrize("route", ["create", "preupload", "batch", "commit"])
def test_a_rejected_request_is_one_sentence(hub: HubRepository, artifact: Path, route: str) -> None:
    hub.rejected = route
    with pytest.raises(edgepress.UserError, match=r"Uploading to me/tiny failed .*403.*the token's rights"):
        publish(artifact, "me/tiny", license="mit", folders=["model"])
    assert hub.files == {}


def test_a_wrong_token_is_one_sentence(hub: HubRepository, artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(edgepress.UserError, match=r"Uploading to me/tiny failed .*401.*the token's rights"):
        publish(artifact, "me/tiny", license="mit", folders=["model"])
    assert hub.name == ""


def test_a_hub_that_does_not_answer_is_one_sentence(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    result = CliRunner().invoke(main, ["publish", str(artifact), "me/tiny", "--license", "mit"])
    assert result.exit_code == 2, result.output
    assert "Uploading to me/tiny failed" in result.stderr
    assert "Check the network" in result.stderr
