"""`edgepress serve`: options without effect are refused before the server starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from edgepress.cli.main import main


@pytest.mark.parametrize("host", ["0.0.0.0", "board.local"])
def test_further_names_of_a_server_that_answers_to_every_name(host: str, tmp_path: Path) -> None:
    options = ("--allow-root", "--host", host, "--allowed-host", "b.local", "--state", str(tmp_path))
    result = CliRunner().invoke(main, ["serve", str(tmp_path), *options])
    assert result.exit_code == 2
    assert f"--allowed-host has no effect: a server on {host} answers to every name. Leave it out." in result.stderr
