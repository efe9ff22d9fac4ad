"""Two checkouts of a package whose costs are known, and ratios computed by hand."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

import click
import pytest

from edgepress.benchmarks.common.compare_checkouts import Checkout, compare_costs, compute_ratio, get_revision

# Uses as many seconds of CPU time as the checkout says, and refuses what it does not know.
PROGRAM = """
import sys, time
from pathlib import Path
if sys.argv[1] != "work":
    raise SystemExit(f"No such command {sys.argv[1]}")
assert list(Path("scratch").iterdir()) == []
Path("scratch/result").touch()
with Path("order").open("a") as file:
    file.write("x")
while time.process_time() < SECONDS:
    pass
"""


def make_checkout(folder: Path, name: str, seconds: float) -> Checkout:
    root = folder / "roots" / name
    root.mkdir(parents=True)
    (root / "__init__.py").touch()
    (root / "__main__.py").write_text(PROGRAM.replace("SECONDS", str(seconds)))
    return Checkout(root, folder / name)


@pytest.mark.slow
def test_a_command_that_takes_twice_as_long(tmp_path: Path) -> None:
    old, new = make_checkout(tmp_path, "old", 0.15), make_checkout(tmp_path, "new", 0.3)
    costs = compare_costs(old, new, ["work"], 2)
    ratio = compute_ratio(*([cost.cpu for cost in runs] for runs in costs))
    assert ratio.mean == pytest.approx(2, rel=0.2)
    assert [(tmp_path / name / "order").read_text() for name in ("old", "new")] == ["xxx"] * 2  # the first warms up


def test_a_command_that_fails_ends_the_comparison(tmp_path: Path) -> None:
    checkout = make_checkout(tmp_path, "old", 0)
    assert checkout.has_command("work")
    assert not checkout.has_command("play")
    with pytest.raises(click.ClickException, match="No such command play"):
        checkout.measure(["play"])


def test_ratios_and_their_interval() -> None:
    ratio = compute_ratio([1, 2, 4], [1, 4, 16])  # 1, 2 and 4
    assert ratio.mean == pytest.approx(2)
    # logarithms of base 2: 0, 1 and 2, whose standard error is 1/sqrt(3); t of 2 degrees of freedom is 4.303
    assert ratio.low is not None
    assert ratio.high is not None
    assert math.log2(ratio.high) == pytest.approx(1 + 4.3027 / math.sqrt(3), rel=1e-4)
    assert math.log2(ratio.low) == pytest.approx(1 - 4.3027 / math.sqrt(3), rel=1e-4)
    assert str(compute_ratio([2], [3])) == "1.500"
    assert str(compute_ratio([2, 2], [3, 3])) == "1.500 [1.500, 1.500]"


def test_reports_name_a_checkout_by_its_commit(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=A", "-c", "user.email=a@example.com"]
    for arguments in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True)
    log = subprocess.run([*git, "log", "--format=%H"], check=True, capture_output=True, text=True).stdout
    assert get_revision(tmp_path) == log[:7]


def test_reports_name_a_folder_without_commits_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "release").mkdir()
    assert get_revision(tmp_path / "release") == "release"
