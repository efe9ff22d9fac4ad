"""The command of the comparison."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgepress.benchmarks.peers import catalog
from edgepress.benchmarks.peers.errors import PeerError
from edgepress.benchmarks.peers.quantization import QuantizedRun
from edgepress.benchmarks.peers.table import TableEntry
from edgepress.recipes.loader import load_recipe

COMMAND = importlib.import_module("edgepress.benchmarks.peers.__main__")


def test_the_help_lists_all_options() -> None:
    result = CliRunner().invoke(COMMAND.main, ["--help"])
    assert result.exit_code == 0
    assert all(option in result.output for option in ("--limit", "--only", "--output"))


def test_a_failed_peer_is_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> tuple[QuantizedRun, Path]:
        raise PeerError("installation failed: no such version")

    monkeypatch.setattr(COMMAND, "quantize_with_peer", fail)
    entry = COMMAND._run_peer(catalog.PEERS[0], load_recipe("orin"), 4, lambda *_: None)
    assert entry == TableEntry(catalog.PEERS[0].title, error="installation failed: no such version")
