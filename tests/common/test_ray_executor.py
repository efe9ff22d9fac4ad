"""Work on a Ray cluster of two workers that is started here: the same bytes as without, also if one is killed."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from edgepress.common import cluster_address, ray_executor
from edgepress.common.errors import UserError
from edgepress.common.executor import Check, open_executor
from edgepress.common.ray_executor import RayExecutor, make_inspection, start_cluster
from edgepress.evaluate.evaluator import run_evaluation
from edgepress.evaluate.plan import EvaluationOptions, plan_evaluation
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.recipes.schema import Recipe

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow

RECIPE = Recipe.model_validate(
    {"device": "test", "quantize": {"method": "gptq"}, "calibration": {"count": 2, "steps": 2}}
)
MEMORY = 2**33


@contextmanager
def no_check() -> Iterator[Check]:
    yield lambda: None


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    """A cluster with two cores for all tests; at its end nothing is left of it."""
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ray_executor, "count_cores", lambda: 2)
        patched.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # for workers
        with start_cluster("local", MEMORY) as connected:
            assert signal.getsignal(signal.SIGTERM) is handler
            folder = Path(connected._private.worker._global_node.get_temp_dir_path())
            raylets = find_processes("raylet")
            yield connected
    assert raylets
    assert not folder.exists()
    assert not find_processes("raylet")


def find_processes(title: str) -> list[int]:
    """The processes below this one whose title holds a text."""
    parents, titles = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                titles[int(entry.name)] = (entry / "cmdline").read_bytes().decode(errors="replace")
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])

    def is_below(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and is_below(parents[pid]))

    return [pid for pid, text in titles.items() if title in text and pid != os.getpid() and is_below(pid)]


@pytest.fixture
def cluster(session: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayExecutor]:
    """An executor on the cluster; so is what the command line opens as `local`."""

    @contextmanager
    def connect(*_: object) -> Iterator[Any]:
        yield session

    monkeypatch.setattr(ray_executor, "start_cluster", connect)
    with open_executor("local", no_check) as opened:
        assert isinstance(opened, RayExecutor)
        yield opened


@contextmanager
def a_worker_is_killed() -> Iterator[list[int]]:
    """Kills the first worker that takes a unit."""
    killed: list[int] = []
    is_over = threading.Event()

    def watch() -> None:
        while not killed and not is_over.is_set():
            for pid in find_processes("ray::_run_unit")[:1]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
            time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield killed
    finally:
        is_over.set()
        thread.join()


# ---------------------------------------------------------------- units


def test_results_are_in_order_with_warnings_once_though_a_worker_is_killed(
    cluster: RayExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    def prepare() -> Callable[[int], int]:
        def run(number: int) -> int:
            time.sleep(0.3 if number == 0 else 0.0)
            logging.getLogger("edgepress.test").warning("a warning")
            return number**2

        return run

    with a_worker_is_killed() as killed:
        assert list(cluster.map(prepare, range(9))) == [number**2 for number in range(9)]
    assert killed
    assert [record.getMessage() for record in caplog.records if record.name == "edgepress.test"] == ["a warning"]


def test_errors_of_users_and_defects_arrive_as_they_are(cluster: RayExecutor) -> None:
    def prepare() -> Callable[[Exception], None]:
        def run(error: Exception) -> None:
            raise error

        return run

    with pytest.raises(UserError, match=r"^The file is wrong. Give another one.$"):
        list(cluster.map(prepare, [UserError("The file is wrong. Give another one.")]))
    with pytest.raises(ZeroDivisionError):
        list(cluster.map(prepare, [ZeroDivisionError()]))


def test_a_unit_that_always_loses_its_worker_ends_the_run(
    cluster: RayExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def prepare() -> Callable[[int], None]:
        return lambda code: os._exit(code)

    monkeypatch.setattr(ray_executor, "MAX_RETRIES", 0)
    with pytest.raises(UserError, match=r"lost its Ray worker 1 times.*Check the memory"):
        list(cluster.map(prepare, [1]))


def test_units_that_no_machine_can_hold_are_refused(cluster: RayExecutor) -> None:
    with pytest.raises(UserError, match=r"has the 1 cores and 16.0 GiB"):
        list(cluster.map(lambda: abs, [1], memory=2**34))


@pytest.mark.usefixtures("cluster")
def test_a_machine_that_differs_is_named() -> None:
    @contextmanager
    def make_check() -> Iterator[Check]:
        yield lambda: "has no rain. Wait."

    with (
        open_executor("local", make_check) as opened,
        pytest.raises(UserError, match=r"^The Ray machine .* has no rain"),
    ):
        list(opened.map(lambda: abs, [1]))


def test_a_machine_without_edgepress_is_named(tmp_path: Path) -> None:
    check = pickle.dumps(cluster_address.check_cluster)  # something of edgepress
    (tmp_path / "inspect").write_bytes(ray.cloudpickle.dumps(make_inspection("/", check)))
    code = "import pathlib, pickle, sys; sys.modules['edgepress'] = None; "
    code += f"print(pickle.loads(pathlib.Path({str(tmp_path / 'inspect')!r}).read_bytes())())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "has no edgepress, or another version of it" in done.stdout
    assert "does not have the folder" in str(make_inspection(str(tmp_path / "absent"), check)())


# ---------------------------------------------------------------- stages


def read_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("cluster")
def test_quantizing_gives_the_same_bytes_though_the_command_and_a_worker_are_killed(lean: Path, tmp_path: Path) -> None:
    quantize_pipeline(RECIPE, lean, tmp_path / "serial")

    def die(stage: str, done: int, _: int) -> None:
        if stage == "quantizing" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_pipeline(RECIPE, lean, tmp_path / "ray", ray="local", progress=die)
    seen: list[tuple[str, int, int]] = []
    with a_worker_is_killed() as killed:
        quantize_pipeline(RECIPE, lean, tmp_path / "ray", ray="local", progress=lambda *report: seen.append(report))
    assert killed
    assert [done for stage, done, _ in seen if stage == "quantizing"] in ([1, 2, 3], [2, 3])
    assert read_bytes(tmp_path / "ray" / "model") == read_bytes(tmp_path / "serial" / "model")


@pytest.mark.usefixtures("cluster")
def test_evaluating_gives_the_same_images_and_scores(
    reference: Path, candidate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, images = [], []
    for number, address in enumerate((None, "local")):
        monkeypatch.chdir(tmp_path)
        (tmp_path / str(number)).mkdir()
        monkeypatch.chdir(tmp_path / str(number))
        recipe = Recipe.model_validate({"device": "test", "evaluation": {"steps": 1, "prompts": "evaluation"}})
        options = EvaluationOptions(
            str(reference), (str(candidate),), metrics=("psnr", "ssim"), output=Path("out"), ray=address, gates=False
        )
        results = run_evaluation(plan_evaluation(recipe, options))
        samples.append(results.samples)
        images.append({name: data for name, data in read_bytes(Path("artifacts")).items() if name.endswith(".png")})
    assert images[0]
    assert images[1] == images[0]
    assert samples[1] == samples[0]
