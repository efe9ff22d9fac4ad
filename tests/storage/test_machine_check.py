"""What a machine of a cluster is compared with: code, libraries, files that are read, folders that are written to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgepress.storage.machine_check import MachineCheck, make_machine_check

MODULE = "edgepress.common.errors"


@pytest.fixture
def check(tmp_path: Path) -> MachineCheck:
    """A check that was made while the folders were there, of which the marker is gone."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with make_machine_check(MODULE, [tmp_path / "model"], [tmp_path / "work"]) as check:
        assert check() is None
    return check


def test_a_machine_that_does_not_share_the_output_is_named(check: MachineCheck, tmp_path: Path) -> None:
    problem = check()
    assert problem is not None
    assert str(tmp_path / "work") in problem
    assert "share" in problem
    assert not list((tmp_path / "work").iterdir())


def test_a_machine_with_other_files_is_named(check: MachineCheck, tmp_path: Path) -> None:
    (tmp_path / "model" / "config.json").write_text('{"other": 1}')
    problem = replace(check, markers=())()
    assert problem is not None
    assert str(tmp_path / "model") in problem


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"code": "0"}, "has another version of edgepress"),
        ({"libraries": {"numpy": "0.1"}}, "instead of 0.1"),
    ],
)
def test_a_machine_with_other_versions_is_named(check: MachineCheck, changes: dict[str, object], expected: str) -> None:
    problem = replace(check, markers=(), **changes)()  # type: ignore[arg-type]
    assert problem is not None
    assert expected in problem
    assert "Install" in problem
