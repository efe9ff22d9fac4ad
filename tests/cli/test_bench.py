"""`edgepress bench` on a genuine artifact: what it leaves, when it ends early too, and one sentence for bad input."""

from __future__ import annotations

import os
import signal
from contextlib import nullcontext
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from helpers.small_artifact import write_small_artifact

from edgepress.cli import bench as command
from edgepress.cli.main import main
from edgepress.perf import runner as measuring
from edgepress.perf import worker_process
from edgepress.perf.runner import BenchConfig, run_benchmark
from edgepress.perf.schema import BenchResults
from edgepress.prompts.prompt import Prompt


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests must not change it."""
    folder = tmp_path_factory.mktemp("bench") / "artifact"
    write_small_artifact(folder)
    return folder


def bench(artifact: Path, *more: object) -> Result:
    arguments = ["bench", artifact, "--images", 3, "--steps", 2, "--size", "32x48", *more]
    return CliRunner().invoke(main, [str(word) for word in arguments])


def plan_of(artifact: Path, images: int) -> BenchConfig:
    prompts = [Prompt(id="a", prompt="a cat", language="en"), Prompt(id="b", prompt="rain", language="en")]
    return BenchConfig(artifact, prompts, "two", images, (32, 32), 1, None, 5, True, ())


def loaded(folder: Path) -> BenchResults:
    return BenchResults.model_validate_json((folder / "bench.json").read_text("utf-8"))


def test_it_measures_and_shows_what_it_has_written(artifact: Path, tmp_path: Path) -> None:
    done = bench(artifact, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "bench.md").read_text("utf-8") in done.stdout
    found = loaded(tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["bench.json", "bench.md"]
    assert (found.schema_version, found.incomplete_reason, len(found.images)) == (1, None, 4)
    assert (found.settings.size, found.settings.steps, found.settings.prompt_set) == ((32, 48), 2, "smoke")
    assert found.engine.endswith("CPUExecutionProvider")
    assert [picture.seed for picture in found.images] == [0, 1, 2, 3]
    assert sum(found.file_sizes.values()) == sum(
        f.stat().st_size for f in (artifact / "onnx").rglob("*") if f.is_file()
    )


def test_parts_are_parts_of_the_whole(artifact: Path, tmp_path: Path) -> None:
    bench(artifact, "-o", tmp_path, "--prompt", "a cat")
    found = loaded(tmp_path)
    for picture in found.images:
        parts = [picture.loading, picture.text_encoder, *picture.steps, picture.decoder]
        assert min(parts[1:]) > 0
        assert sum(parts) < picture.seconds
        assert 20e6 < picture.rss <= picture.peak_rss <= found.memory.peak
    assert found.images[0].loading > 0
    assert [picture.loading for picture in found.images[1:]] == [0, 0, 0]
    assert found.summary.startup == found.summary.process_start + found.images[0].loading > 0.05


def test_with_one_graph_in_memory_each_picture_loads_again(artifact: Path, tmp_path: Path) -> None:
    bench(artifact, "-o", tmp_path, "--one-graph", "--images", 1)
    assert [picture.loading > 0 for picture in loaded(tmp_path).images] == [True, True]


# ---------------------------------------------------------------- runs that end early


def workers() -> list[int]:
    """The children of this process that paint."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            words = (process / "cmdline").read_text()
        except OSError:
            continue
        if int(parent) == os.getpid() and "bench.worker" in words:
            found.append(int(process.name))
    return found


def test_a_worker_that_is_killed_is_a_sentence_and_what_there_was_is_kept(artifact: Path) -> None:
    def progress(stage: str, done: int, _: int) -> None:
        if (stage, done) == ("painting", 3):
            (worker,) = workers()
            os.kill(worker, signal.SIGKILL)

    found = run_benchmark(plan_of(artifact, 50), lambda _: None, progress)
    assert len(found.images) == 3
    assert [(picture.prompt, picture.seed) for picture in found.images] == [("a", 5), ("b", 6), ("a", 7)]
    said = "The measured process was killed by signal 9 (Killed), after image 2, having held "
    assert found.incomplete_reason is not None
    assert found.incomplete_reason.startswith(said)
    assert found.memory.peak == max(picture.peak_rss for picture in found.images) > 20e6


def test_ctrl_c_keeps_what_there_was(artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is cut by force leaves what it writes every few seconds, here after each picture."""
    underway = []

    def progress(stage: str, done: int, _: int) -> None:
        if (stage, done) == ("painting", 3):
            underway.append(loaded(tmp_path / "out"))
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(command, "bars", lambda _: nullcontext(progress))
    monkeypatch.setattr(measuring, "OFTEN", 0)
    done = bench(artifact, "--images", 50, "-o", tmp_path / "out")
    assert (done.exit_code, underway[0].partial, len(underway[0].pictures)) == (2, "the run was cut", 3)
    found = loaded(tmp_path / "out")
    assert (found.incomplete_reason, found.images) == ("interrupted", underway[0].pictures)
    assert "**Partial: 2 of 50 images.** Why: interrupted." in done.stdout
    assert "Error: Interrupted after 2 of 50 images; what was measured stands in bench.json" in done.stderr
    assert workers() == []


# ---------------------------------------------------------------- bad input


def refused(done: Result) -> str:
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--size", "60x64"), "60x64 cannot be painted"),
        (("--tile", "33"), "Tiles of 33 pixels cannot be"),
        (("--provider", "NoSuchProvider"), "has no NoSuchProvider"),
        (("--prompts", "nowhere.jsonl"), "There is no prompt set or file 'nowhere.jsonl'"),
        (("--prompts", "smoke", "--prompt", "a cat"), "--prompt and --prompts both say what to paint"),
        (("--images", "0"), "'--images': 0 is not in the range x>=1"),
    ],
)
def test_what_cannot_be_is_a_sentence_and_leaves_nothing(
    artifact: Path, tmp_path: Path, more: tuple[str, ...], said: str
) -> None:
    assert said in refused(bench(artifact, "-o", tmp_path / "out", *more))
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_that_is_none_is_a_sentence(tmp_path: Path) -> None:
    assert "There is no artifact folder" in refused(bench(tmp_path / "nowhere"))
    assert "holds no onnx/pipeline.json" in refused(bench(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_provider_is_refused_where_an_npu_runs_the_parts(tmp_path: Path) -> None:
    (tmp_path / "rknn").mkdir()
    (tmp_path / "rknn" / "pipeline.json").write_text("{}")
    said = refused(bench(tmp_path, "--provider", "CPUExecutionProvider"))
    assert "holds parts for an NPU, which ONNX Runtime does not run; leave --provider out" in said


def test_other_systems_are_told_at_once(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert refused(bench(artifact)).startswith("Error: edgepress bench needs Linux")


def test_an_output_that_cannot_be_is_said_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "Nothing can be written to" in refused(bench(tmp_path / "nowhere", "-o", tmp_path / "file" / "out"))


def test_a_worker_that_breaks_is_told_with_its_last_words(
    artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_process, "MODULE", "edgepress.perf.nowhere")
    said = refused(bench(artifact, "-o", tmp_path))
    assert "The measured process ended with exit code 1 (" in said
    assert "No module named edgepress.perf.nowhere), before it could read a prompt" in said
