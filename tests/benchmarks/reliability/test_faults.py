"""Publishing and a quantization that fail at some operations on files; `make faults` tries all, and other commands."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import helpers.commands  # noqa: F401  commands are forked from its server, which has the imports
import pytest

from edgepress.benchmarks.reliability.fault_runner import FaultRunner, choose_points
from edgepress.benchmarks.reliability.file_trees import describe_difference, hash_tree
from edgepress.benchmarks.reliability.injection import ERRORS, FAULTS, HIT, KILL, WRITE, Injection, read_log
from edgepress.benchmarks.reliability.verbs import VERBS

OPERATIONS = """
import os, pathlib, sys
from edgepress.benchmarks.reliability.injection import Injection
root, log, number, fault = sys.argv[1:]
Injection(pathlib.Path(root), pathlib.Path(log), int(number), fault)()
root = pathlib.Path(root)
(root.parent / "outside").write_text("x")
with (root / "a").open("w") as file:
    file.write("x")
    file.flush()
    os.fsync(file.fileno())
(root / "a").read_text()
(root / "a").rename(root / "b")
(root / "c").mkdir()
(root / "b").unlink()
"""
EVENTS = ["open", "os.fsync", "os.rename", "os.mkdir", "os.remove"]


def run_operations(folder: Path, number: int, fault: str) -> subprocess.CompletedProcess[str]:
    (folder / "root").mkdir(exist_ok=True)
    command = [sys.executable, "-c", OPERATIONS, folder / "root", folder / "log", str(number), fault]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_operations_below_the_folder_count(tmp_path: Path) -> None:
    assert run_operations(tmp_path, -1, KILL).returncode == 0
    assert (tmp_path / "log").read_text().splitlines() == EVENTS
    assert read_log(tmp_path / "log") == (len(EVENTS), False)


@pytest.mark.parametrize("fault", FAULTS)
def test_an_operation_fails(tmp_path: Path, fault: str) -> None:
    number = 0 if fault == WRITE else 2
    result = run_operations(tmp_path, number, fault)
    assert (tmp_path / "log").read_text().splitlines()[: number + 2] == [*EVENTS[: number + 1], HIT]
    if fault == KILL:
        assert result.returncode == -9
    else:
        code = ERRORS.get(fault, errno.EFBIG)
        assert result.returncode == 1
        assert os.strerror(code) in result.stderr
    assert (tmp_path / "root" / "a").read_text() == ("" if fault == WRITE else "x")


CHILDREN = """
import pathlib, subprocess, sys
from edgepress.benchmarks.reliability.injection import Injection
root, log, number = sys.argv[1:]
Injection(pathlib.Path(root), pathlib.Path(log), int(number), "child")()
(pathlib.Path(root) / "before").touch()
child = subprocess.Popen(["sleep", "60"])
(pathlib.Path(root) / "after").touch()
if int(number) == 0:
    child.terminate()
print(child.wait())
"""


@pytest.mark.parametrize(("number", "signal", "is_hit"), [(0, 15, False), (2, 9, True)])
def test_children_are_killed_at_an_operation(tmp_path: Path, number: int, signal: int, is_hit: bool) -> None:
    """At operation 0 there is none yet; the test ends that one itself."""
    (tmp_path / "root").mkdir()
    command = [sys.executable, "-c", CHILDREN, tmp_path / "root", tmp_path / "log", str(number)]
    assert int(subprocess.run(command, check=True, capture_output=True).stdout) == -signal
    assert read_log(tmp_path / "log") == (3, is_hit)


def test_operations_in_an_open_folder_count(tmp_path: Path) -> None:
    """As shutil.rmtree deletes: by names in a folder's descriptor."""
    code = "import pathlib, shutil, sys; from edgepress.benchmarks.reliability.injection import Injection\n"
    code += "Injection(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))(); shutil.rmtree(sys.argv[1] + '/x')"
    (tmp_path / "root" / "x" / "y").mkdir(parents=True)
    (tmp_path / "root" / "x" / "y" / "file").touch()
    subprocess.run([sys.executable, "-c", code, tmp_path / "root", tmp_path / "log"], check=True)
    assert (tmp_path / "log").read_text().splitlines() == ["os.remove", "os.rmdir", "os.rmdir"]


@pytest.mark.slow
def test_publishing_that_fails_ends_in_the_same_files(tmp_path: Path) -> None:
    runner = FaultRunner(VERBS["publish"], tmp_path, tmp_path)
    assert runner.points > 15
    points = choose_points(runner.points, 5)
    for fault in (KILL, "ENOSPC"):
        report = runner.try_fault(fault, points)
        assert report.tried == len(points)
        assert report.problems == []


@pytest.mark.slow
def test_a_quantization_that_fails_anywhere_ends_in_the_same_files(tiny: Path, tmp_path: Path) -> None:
    verb = VERBS["quantize --force"]
    runner = FaultRunner(replace(verb, prepare=verb.prepare[:1]), tiny, tmp_path)
    assert runner.points > 20
    points = choose_points(runner.points, 6)
    for fault, number in (("ENOSPC", 1), ("EACCES", 3), (WRITE, 4), (KILL, 2)):
        report = runner.try_fault(fault, [points[number]])
        assert report.problems == []


def test_points_are_spread_evenly() -> None:
    assert choose_points(101, 5) == [0, 25, 50, 75, 100]
    assert choose_points(3, 5) == choose_points(3, 0) == [0, 1, 2]
    assert choose_points(9, 1) == [0]


def test_differences_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.json").write_text('{"created": 1, "x": 1}')
    expected = hash_tree(tmp_path)
    assert sorted(expected) == ["a.json", "empty/"]
    (tmp_path / "a.json").write_text('{"x": 1, "created": 2}')
    assert describe_difference(expected, hash_tree(tmp_path)) is None
    (tmp_path / "a.json").write_text('{"x": 2}')
    (tmp_path / "b.new").touch()
    (tmp_path / "empty").rmdir()
    assert (
        describe_difference(expected, hash_tree(tmp_path)) == "missing: empty/; left behind: b.new; different: a.json"
    )


def test_an_injection_can_be_sent_to_a_process(tmp_path: Path) -> None:
    import pickle

    injection = Injection(tmp_path, tmp_path / "log", 3, WRITE)
    assert pickle.loads(pickle.dumps(injection)) == injection
