"""Compares what commands cost in two checkouts of edgepress, in turns.

    python -m edgepress.benchmarks.common.compare_checkouts OLD

Each command runs in its own process, first in one checkout and then in the other, with what that checkout prepared
itself. Ratios are those of neighbouring runs, so that a busy machine slows both down.
"""

from __future__ import annotations

import math
import shutil
import statistics
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import yaml
from scipy.stats import ttest_1samp

from ...common.markdown_table import render_table
from .process import Cost, measure_command
from .report import write_section

NEW_CHECKOUT = Path(__file__).parents[2]
CONFIDENCE = 0.95
MAX_RATIO = 1.05
ARTIFACT, SCRATCH, RECIPE = "artifact", "scratch", "recipe.yaml"  # relative to the folder of a checkout
RECIPE_CONTENT = {
    "device": "test",
    "model": "demo",
    "quantize": {"method": "rtn"},
    "calibration": {"count": 1, "steps": 1},
    "evaluation": {"steps": 1},
}
QUANTIZE, EXPORT = ("quantize", "--recipe", RECIPE, "--output"), ("export", "onnx", "--model", "demo", "--no-check")
PREPARE: Sequence[Sequence[str]] = (
    (*QUANTIZE, ARTIFACT),
    (*EXPORT, "--precision", "fp32", "--output", ARTIFACT),
)
COMMANDS: Mapping[str, Sequence[str]] = {
    "recipes show": ("recipes", "show", "orin"),
    "info": ("info", ARTIFACT),
    "quantize, rtn": (*QUANTIZE, f"{SCRATCH}/artifact"),
    "export onnx, unchecked, graphs cached": (*EXPORT, "--precision", "fp32", "--output", f"{SCRATCH}/artifact"),
    "export onnx, checked, graphs cached": (*EXPORT[:-1], "--precision", "fp32", "--output", f"{SCRATCH}/artifact"),
    "generate": ("generate", ARTIFACT, "--prompt", "a red sign", "--steps", "1", "--output", f"{SCRATCH}/image.png"),
    "evaluate, one prompt": (
        *("evaluate", "--recipe", RECIPE, "--candidate", f"{ARTIFACT}/model", "--limit", "1"),
        *("--no-noise-floor", "--no-gates", "--restart", "--output", f"{SCRATCH}/evaluation"),
    ),
    "bench, one image": ("bench", ARTIFACT, "--images", "1", "--steps", "1", "--output", f"{SCRATCH}/bench"),
    "verify": ("verify", ARTIFACT, "--rehash"),
}


@dataclass(frozen=True)
class Ratio:
    """A geometric mean of ratios, new to old, with its 95 % interval (Student's t of the logarithms).

    Attributes:
        mean: The mean.
        low: Lower end of the interval; None if there was one run.
        high: Upper end of the interval.
    """

    mean: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        interval = "" if self.low is None or self.high is None else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.mean:.3f}{interval}"


def get_revision(checkout: Path) -> str:
    """Returns the short hash of a checkout's commit, by which a report names it; the folder's name without git."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short=7", "HEAD"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else checkout.name


class Checkout:
    """A checkout with a folder in which its commands run.

    Args:
        root: The checkout.
        folder: A folder to create.
    """

    def __init__(self, root: Path, folder: Path) -> None:
        self._folder, self._log = folder, folder.with_suffix(".log")
        (folder / SCRATCH).mkdir(parents=True)
        (folder / "view").mkdir()
        (folder / "view" / "edgepress").symlink_to(root.resolve())
        (folder / RECIPE).write_text(yaml.safe_dump(RECIPE_CONTENT), "utf-8")
        user_folders = {f"XDG_{name}_HOME": folder / name.lower() for name in ("CACHE", "STATE")}
        # One thread: others would wait for each other on a busy machine, which is CPU time as well.
        # The environment may keep Python from storing compiled modules, which it then compiles in every run.
        variables = {
            "PYTHONPATH": folder / "view",
            "PYTHONDONTWRITEBYTECODE": "",
            "OMP_NUM_THREADS": 1,
            **user_folders,
        }
        assignments = [f"{name}={value}" for name, value in variables.items()]
        self._prefix = ["env", "-C", str(folder), *assignments, sys.executable, *_read_entry(root)]

    @property
    def scratch(self) -> Path:
        """The folder that is empty when a command begins."""
        return self._folder / SCRATCH

    def measure(self, arguments: Sequence[str]) -> Cost:
        """Runs a command, with nothing in its scratch folder.

        Raises:
            ClickException: It failed.
        """
        shutil.rmtree(self._folder / SCRATCH)
        (self._folder / SCRATCH).mkdir()
        return measure_command([*self._prefix, *arguments], self._log)

    def has_command(self, name: str) -> bool:
        """Whether this checkout has a verb."""
        try:
            self.measure([name, "--help"])
        except click.ClickException:
            return False
        return True


def _read_entry(root: Path) -> list[str]:
    """The arguments of Python that run a checkout's command: older ones cannot be run with -m."""
    if (root / "__main__.py").exists():
        return ["-m", "edgepress"]
    module, name = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]["edgepress"].split(
        ":"
    )
    return ["-c", f"import sys; sys.argv[0] = 'edgepress'; from {module} import {name}; {name}()"]


def compare_costs(
    old: Checkout, new: Checkout, arguments: Sequence[str], repeats: int
) -> tuple[list[Cost], list[Cost]]:
    """Runs a command in both checkouts in turns, and each first as often as the other.

    Args:
        old: The older checkout.
        new: The newer checkout.
        arguments: The command. Its first runs do not count: they compile and fill caches.
        repeats: Number of runs in each checkout.

    Raises:
        ClickException: It failed in one of them.
    """
    costs: dict[Checkout, list[Cost]] = {old: [], new: []}
    for checkout in costs:
        checkout.measure(arguments)
    for number in range(repeats):
        for checkout in (old, new) if number % 2 else (new, old):
            costs[checkout].append(checkout.measure(arguments))
    return costs[old], costs[new]


def compute_ratio(old: Sequence[float], new: Sequence[float]) -> Ratio:
    """The ratio of neighbouring runs."""
    logarithms = [math.log(after / before) for before, after in zip(old, new, strict=True)]
    mean = math.exp(statistics.fmean(logarithms))
    if len(logarithms) < 2:
        return Ratio(mean, None, None)
    if len(set(logarithms)) == 1:
        return Ratio(mean, mean, mean)
    interval = ttest_1samp(logarithms, 0).confidence_interval(CONFIDENCE)
    return Ratio(mean, math.exp(interval.low), math.exp(interval.high))


def make_row(name: str, old: Sequence[Cost], new: Sequence[Cost]) -> list[str]:
    """A row of the table: medians of the CPU time, and ratios of CPU time and wall time."""
    medians = [f"{statistics.median(cost.cpu for cost in costs):.2f}" for costs in (old, new)]
    cpu = compute_ratio([cost.cpu for cost in old], [cost.cpu for cost in new])
    wall = compute_ratio([cost.seconds for cost in old], [cost.seconds for cost in new])
    return [name, *medians, str(cpu), str(wall)]


@click.command(help=__doc__)
@click.argument("old", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--repeats", type=click.IntRange(min=1), default=5, show_default=True, help="Runs in each checkout.")
@click.option("--command", "names", type=click.Choice(list(COMMANDS)), multiple=True, help="Only this one.")
def main(old: Path, repeats: int, names: tuple[str, ...]) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        older, newer = Checkout(old.resolve(), Path(folder) / "old"), Checkout(NEW_CHECKOUT, Path(folder) / "new")
        chosen = names or list(COMMANDS)
        needs_artifact = any(word.startswith(ARTIFACT) for name in chosen for word in COMMANDS[name])
        for checkout in (older, newer):
            for arguments in PREPARE if needs_artifact else ():
                checkout.measure(arguments)
        for name in chosen:
            if older.has_command(COMMANDS[name][0]):
                rows.append(make_row(name, *compare_costs(older, newer, COMMANDS[name], repeats)))
                click.echo(" | ".join(rows[-1]), err=True)
    body = "\n\n".join(
        [
            "## Commands, compared with an older checkout",
            f"{repeats} runs in each checkout, in turns, on the demo, each with one thread and the whole process "
            "including start-up. Ratios are new to old, with 95 % intervals; no ratio of CPU times may be above "
            f"{MAX_RATIO}.",
            render_table(["command", "CPU time, s: old", "new", "ratio", "ratio of wall times"], rows),
        ]
    )
    click.echo(body)
    if not names:
        write_section("cost-commands", f"make bench-commands OLD={get_revision(old)} REPEATS={repeats}", body)


if __name__ == "__main__":
    main()
