"""Environments of peers: the order of installation, and when they are created."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepress.benchmarks.peers import environments


def test_torch_is_installed_first() -> None:
    pins = "# first: wheel==1 ninja==2\n# options: --no-build-isolation\na==1\ntorch==2.13.0\ntorchao==0.18.0\n"
    assert environments.list_install_steps(pins, Path("p.txt")) == [
        ["torch==2.13.0"],
        ["wheel==1", "ninja==2"],
        ["--no-build-isolation", "--requirement", "p.txt"],
    ]


def test_without_torch_there_is_one_step() -> None:
    assert environments.list_install_steps("a==1\n", Path("p.txt")) == [["--requirement", "p.txt"]]


def test_an_environment_is_created_once_per_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(environments, "_run_command", lambda command, _: _create_environment(calls, command, tmp_path))
    first = environments.ensure_environment("gguf", tmp_path)
    num_calls = len(calls)
    assert environments.ensure_environment("gguf", tmp_path) == first
    assert num_calls == len(calls) == 3
    monkeypatch.setattr(environments, "read_requirements", lambda _: "torch==2.13.0\ngguf==9\n")
    environments.ensure_environment("gguf", tmp_path)
    assert len(calls) == 2 * num_calls


def _create_environment(calls: list[list[str]], command: list[str], folder: Path) -> None:
    calls.append(command)
    (folder / "env").mkdir(exist_ok=True)
