"""`edgepress bench` on a small artifact: what it writes, also if it ends early, and how it rejects bad input."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from helpers.processes import find_workers
from helpers.small_artifact import write_small_artifact

from edgepress.cli import bench as command
from edgepress.cli.main import main
from edgepress.perf import runner, worker_process
from edgepress.perf.schema import BenchResults


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests must not change it."""
    folder = tmp_path_factory.mktemp("bench") / "artifact"
    write_small_artifact(folder)
    return folder


def bench(artifact: Path, *arguments: object) -> Result:
    defaults = {"--images": 3, "--steps": 2, "--size": "32x48"}
    options = [text for name, value in defaults.items() if name not in arguments for text in (name, value)]
    return CliRunner().invoke(main, [str(argument) for argument in ("bench", artifact, *options, *arguments)])


def load_results(folder: Path) -> BenchResults:
    return BenchResults.model_validate_json((folder / "bench.json").read_text("utf-8"))


def find_incomplete(folder: Path) -> Path:
    (incomplete,) = folder.glob("*-incomplete")
    return incomplete


@pytest.mark.slow
def test_results_and_report_are_written(artifact: Path, tmp_path: Path) -> None:
    result = bench(artifact, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "bench.md").read_text("utf-8") in result.stdout
    results = load_results(tmp_path / "out")
    (plan,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert re.fullmatch("3-images-of-smoke-48x32-2-steps-[0-9a-f]{8}", plan.name)
    for name in ("bench.json", "bench.md"):
        assert (plan / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert (results.schema_version, results.incomplete_reason, len(results.images)) == (2, None, 4)
    assert (results.settings.size, results.settings.steps, results.settings.prompt_set) == ((32, 48), 2, "smoke")
    assert results.engine.endswith("CPUExecutionProvider")
    assert [image.seed for image in results.images] == [0, 1, 2, 3]
    files = [file for file in (artifact / "onnx").rglob("*") if file.is_file()]
    assert sum(results.file_sizes.values()) == sum(file.stat().st_size for file in files)


@pytest.mark.slow
def test_stages_are_parts_of_the_total_time(artifact: Path, tmp_path: Path) -> None:
    bench(artifact, "-o", tmp_path, "--prompt", "a cat")
    results = load_results(tmp_path)
    for image in results.images:
        stages = [image.loading, image.text_encoder, *image.steps, image.decoder]
        assert min(stages[1:]) > 0
        assert sum(stages) < image.seconds
        assert 20e6 < image.rss <= image.peak_rss <= results.memory.peak
    assert results.images[0].loading > 0
    assert [image.loading for image in results.images[1:]] == [0, 0, 0]
    assert results.summary.startup == results.summary.process_start + results.images[0].loading > 0.05


@pytest.mark.slow
def test_low_memory_loads_graphs_for_each_image(artifact: Path, tmp_path: Path) -> None:
    bench(artifact, "-o", tmp_path, "--low-memory", "--images", 1)
    assert [image.loading > 0 for image in load_results(tmp_path).images] == [True, True]


@pytest.fixture
def _heard_ctrl_c() -> Iterator[None]:
    """Ctrl-C interrupts, even where the tests run in the background of a shell, which lets them ignore it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.slow
@pytest.mark.usefixtures("_heard_ctrl_c")
def test_ctrl_c_keeps_partial_results(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is killed leaves what it writes every few seconds; here after each image."""
    interim: list[BenchResults] = []

    def progress(stage: str, done: int, _: int) -> None:
        if (stage, done) == ("generating", 3):
            interim.append(load_results(find_incomplete(tmp_path / "out")))
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(command, "show_progress", lambda _: nullcontext(progress))
    monkeypatch.setattr(runner, "SAVE_INTERVAL_S", 0)
    result = bench(artifact, "--images", 50, "-o", tmp_path / "out")
    assert result.exit_code == 130
    assert (interim[0].incomplete_reason, len(interim[0].images)) == (runner.UNFINISHED, 3)
    results = load_results(find_incomplete(tmp_path / "out"))
    assert (results.incomplete_reason, results.images) == ("interrupted", interim[0].images)
    assert "**Incomplete: 2 of 50 images.** Reason: interrupted." in result.stdout
    assert "Error: Interrupted after 2 of 50 images. What was measured is in bench.json" in result.stderr
    assert f"bench.md in {find_incomplete(tmp_path / 'out')}" in result.stderr
    assert not (tmp_path / "out" / "bench.json").exists()
    assert find_workers() == []


# ---------------------------------------------------------------- bad input


def get_error(result: Result) -> str:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return result.stderr.strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--size", "60x64"), "Invalid image size 60x64"),
        (("--tile", "33"), "Invalid tile size 33"),
        (("--provider", "NoSuchProvider"), "has no execution provider 'NoSuchProvider'"),
        (("--prompts", "nowhere.jsonl"), "'nowhere.jsonl'"),
        (("--prompts", "smoke", "--prompt", "a cat"), "--prompt and --prompts exclude each other"),
        (("--images", "0"), "--images: '0' is not a whole number of at least 1. Give one"),
    ],
)
def test_bad_input_is_an_error_and_writes_nothing(
    artifact: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    assert message in get_error(bench(artifact, "-o", tmp_path / "out", *arguments))
    assert list(tmp_path.iterdir()) == []


def test_missing_artifact(tmp_path: Path) -> None:
    assert "does not exist" in get_error(bench(tmp_path / "nowhere"))
    assert "is an empty folder. Give an artifact that 'edgepress export onnx'" in get_error(bench(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_provider_with_rknn_parts(tmp_path: Path) -> None:
    (tmp_path / "rknn").mkdir()
    (tmp_path / "rknn" / "pipeline.json").touch()
    message = get_error(bench(tmp_path, "--provider", "CPUExecutionProvider"))
    assert "holds parts for an NPU, which ONNX Runtime does not run. Remove --provider" in message


def test_system_other_than_linux(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert get_error(bench(artifact)).endswith("Run it on Linux.")


def test_output_is_checked_before_anything_runs(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is not a folder, so" in get_error(bench(artifact, "-o", tmp_path / "file" / "out"))


def test_worker_that_fails_to_start(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_process, "MODULE", "edgepress.perf.nowhere")
    assert "The worker process ended with exit code 1 (" in get_error(bench(artifact, "-o", tmp_path))
