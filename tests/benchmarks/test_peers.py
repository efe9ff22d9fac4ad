"""The comparison with other tools: jobs survive JSON, bits are counted, failures are rows; none is installed here."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from edgepress.benchmarks.common.report import CANDIDATE_NAME, compare_paired_psnr, format_mean
from edgepress.benchmarks.peers import catalog, environments, failure, press, score
from edgepress.benchmarks.peers.table import TableEntry, render_peers_table
from edgepress.benchmarks.peers.workers import layers
from edgepress.benchmarks.peers.workers.job import Batch, Outcome, QuantizeJob
from edgepress.evaluate.metrics.base import Score
from edgepress.evaluate.results.aggregate import aggregate, select_variant
from edgepress.evaluate.results.schema import (
    FolderIdentity,
    ImageResult,
    PairResult,
    Results,
    RunIdentity,
    SampleResult,
    SamplingInfo,
    SystemInfo,
)
from edgepress.evaluate.stats.bootstrap import MeanCI
from edgepress.numerics import affine, awq_packing
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.prompts.prompt import Prompt
from edgepress.recipes import loader
from edgepress.storage.checkpoint import Checkpoint

PEERS = Path(press.__file__).parent
NAMES = [f"{peer.environment}/{peer.name}" for peer in catalog.PEERS]


# ---------------------------------------------------------------- jobs


def test_a_job_survives_json() -> None:
    job = QuantizeJob(
        pipeline="demo",
        layers={"transformer": ("a.0", "a.1"), "text_encoder": ("b",)},
        dtype="float32",
        calibration=(Batch(('a "quoted" prompt', "字"), (1, 2**62)),),
        sampling={"height": 128, "guidance_scale": 0.0},
        options={"group_size": 64, "awq": True},
    )
    assert QuantizeJob.from_json(job.to_json()) == job


def test_a_job_names_the_layers_that_edgepress_quantizes_and_its_calibration() -> None:
    recipe = loader.load_recipe("orin")
    tuned = next(peer for peer in catalog.PEERS if peer.calibrates)
    job = press.make_job(tuned, recipe)
    assert set(job.layers) == {"transformer", "text_encoder"}
    assert all(
        f"{name}.weight" in Checkpoint(DEMO_PIPELINE / part) for part, names in job.layers.items() for name in names
    )
    assert sum(len(batch.prompts) for batch in job.calibration) == recipe.calibration.count
    assert len({seed for batch in job.calibration for seed in batch.seeds}) == recipe.calibration.count
    blind = press.make_job(dataclasses.replace(tuned, calibrates=False), recipe)
    assert blind == dataclasses.replace(job, calibration=())


def test_an_outcome_is_whole_or_not_there(tmp_path: Path) -> None:
    outcome = Outcome(num_weights=1000, num_bits=4250, version="1.0", finished_at=12.5)
    outcome.write(tmp_path / "outcome.json")
    assert Outcome.read(tmp_path / "outcome.json") == outcome
    assert outcome.bits_per_weight == 4.25
    assert [file.name for file in tmp_path.iterdir()] == ["outcome.json"]


# ---------------------------------------------------------------- bits


def test_bits_are_those_of_the_stored_tensors() -> None:
    """Nibbles in bytes, a scale and a zero point of 16 bits for each group of 128: 4.25 bits a weight."""
    codes = torch.zeros(256, 384 // 2, dtype=torch.uint8)
    affine = torch.zeros(256, 384 // 128, 2, dtype=torch.bfloat16)
    assert layers.count_bits(codes, affine) == 4.25 * 256 * 384
    assert layers.count_bits() == 0


def test_grouped_bits_are_those_of_awq_files() -> None:
    weight = torch.randn(64, 256)
    packed = awq_packing.pack_awq(affine.quantize(weight, affine.minmax_qparams(weight, 128)))
    assert layers.count_grouped_bits(64 * 256, 64 * 2) == layers.count_bits(*packed)


def test_own_bits_are_read_from_the_pressed_files(tmp_path: Path) -> None:
    """The demo's layers, each packed by rounding alone."""
    recipe = loader.load_recipe("orin")
    job = press.make_job(catalog.PEERS[0], recipe)
    for part, names in job.layers.items():
        source, packed = Checkpoint(DEMO_PIPELINE / part), {}
        for name in names:
            weight = source.load_tensor(f"{name}.weight").float()
            tensors = awq_packing.pack_awq(affine.quantize(weight, affine.minmax_qparams(weight, 128)))._asdict()
            packed |= {f"{name}.{kind}": tensor for kind, tensor in tensors.items()}
        (tmp_path / part).mkdir()
        score.write_sharded(packed.items(), tmp_path / part, "model")
    assert press.count_stored_bits(tmp_path, recipe) == awq_packing.bits_per_weight(128)


# ---------------------------------------------------------------- workers


class Text(nn.Module):
    """A component that is told of padding, as a text encoder is."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleList([nn.Linear(4, 2)])

    def forward(self, x: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        del attention_mask
        output: torch.Tensor = self.inner[0](x)
        return output


class Pipeline:
    def __init__(self) -> None:
        self.text_encoder = Text()


JOB = QuantizeJob("demo", {"text_encoder": ("inner.0",)}, "float32", (), {})


def test_layers_are_found_by_component_and_name() -> None:
    pipeline = Pipeline()
    assert list(layers.iter_linears(pipeline, JOB)) == [("text_encoder.inner.0", pipeline.text_encoder.inner[0])]


def test_watching_leaves_padding_out_and_ends() -> None:
    pipeline, seen = Pipeline(), list[torch.Tensor]()
    x, mask = torch.randn(2, 3, 4), torch.tensor([[1, 1, 0], [1, 0, 0]])
    with layers.observe_inputs(pipeline, JOB, {"text_encoder.inner.0": seen.append}):
        pipeline.text_encoder(x, attention_mask=mask)
        pipeline.text_encoder(x)
    pipeline.text_encoder(x)
    assert [tuple(rows.shape) for rows in seen] == [(3, 4), (6, 4)]
    torch.testing.assert_close(seen[0], x[mask.bool()])


@pytest.mark.slow
def test_a_worker_runs_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that only halves the weights, run by this environment's interpreter instead of one of its own."""
    workers = tmp_path / "peers" / "workers"
    workers.mkdir(parents=True)
    for file in (PEERS / "workers").glob("*.py"):
        (workers / file.name).write_text(file.read_text("utf-8"), "utf-8")
    (workers / "halver.py").write_text(HALVER, "utf-8")
    (tmp_path / "peers" / "halver.txt").write_text("torch==0\n", "utf-8")
    monkeypatch.setattr(press, "HERE", tmp_path / "peers")
    monkeypatch.setattr(environments, "HERE", tmp_path / "peers")
    monkeypatch.setattr(press, "python_of", lambda *_: Path(sys.executable))
    peer = catalog.Peer("plain", "halver", "halver", "Halver", {"factor": 0.5})
    made, folder = press.quantize_with_peer(peer, loader.load_recipe("orin"), tmp_path / "build")
    assert made.bits_per_weight == 16
    assert 0 < made.seconds < 600
    assert made.peak_memory > 10**8
    found = score.load_file(folder / "layers.safetensors")
    name = next(iter(found))
    part, layer = name.split(".", 1)
    torch.testing.assert_close(found[name], Checkpoint(DEMO_PIPELINE / part).load_tensor(f"{layer}.weight").float() / 2)
    monkeypatch.setattr(press, "python_of", _must_not_be_called)
    assert press.quantize_with_peer(peer, loader.load_recipe("orin"), tmp_path / "build") == (made, folder)


HALVER = """
from .layers import Layer, bits_of, linears

PACKAGE = "torch"


def quantize(pipeline, job):
    return job.options["factor"]


def read(pipeline, job, factor):
    for name, module in linears(pipeline, job):
        yield name, Layer(module.weight * factor, bits_of(module.weight))
"""


def _must_not_be_called(*_: object) -> Path:
    raise AssertionError("what was pressed before is pressed again")


def test_a_candidate_is_the_demo_with_other_weights(tmp_path: Path) -> None:
    name = "layers.0.attention.to_q"
    new = torch.full(Checkpoint(DEMO_PIPELINE / "transformer").shape(f"{name}.weight"), 0.25)
    score.write_candidate({f"transformer.{name}": new}, ("transformer", "text_encoder"), tmp_path / "model")
    written, source = Checkpoint(tmp_path / "model" / "transformer"), Checkpoint(DEMO_PIPELINE / "transformer")
    assert torch.equal(written.load_tensor(f"{name}.weight"), new)
    assert sorted(written.names()) == sorted(source.names())
    assert torch.equal(
        written.load_tensor("layers.1.attention.to_q.weight"), source.load_tensor("layers.1.attention.to_q.weight")
    )
    assert (tmp_path / "model" / "vae" / "config.json").is_symlink()
    assert {path.relative_to(tmp_path / "model") for path in (tmp_path / "model").rglob("*")} == {
        path.relative_to(DEMO_PIPELINE) for path in DEMO_PIPELINE.rglob("*")
    }


# ---------------------------------------------------------------- the catalogue and its environments


def test_peers_are_named_once() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert len({peer.title for peer in catalog.PEERS}) == len(NAMES)


@pytest.mark.parametrize("peer", catalog.PEERS, ids=NAMES)
def test_a_peer_has_pins_and_a_worker(peer: catalog.Peer) -> None:
    pins = [line for line in environments.read_requirements(peer.environment).splitlines() if not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.+]+", line)] == []
    source = (PEERS / "workers" / f"{peer.worker}.py").read_text("utf-8")
    package = re.search(r'^PACKAGE = "([\w-]+)"$', source, re.MULTILINE)
    assert package is not None
    assert package[1].lower() in {line.split("==")[0].lower() for line in pins}


def test_workers_import_nothing_of_edgepress() -> None:
    """Their environments do not have it: no relative import may leave the folder."""
    for file in (PEERS / "workers").glob("*.py"):
        assert not re.search(r"from \.\.|edgepress", file.read_text("utf-8").split('"""', 2)[2]), file


def test_torch_is_installed_first_and_alone() -> None:
    pins = "# first: wheel==1 ninja==2\n# options: --no-build-isolation\na==1\ntorch==2.13.0\ntorchao==0.18.0\n"
    assert environments.list_install_steps(pins, Path("p.txt")) == [
        ["torch==2.13.0"],
        ["wheel==1", "ninja==2"],
        ["--no-build-isolation", "--requirement", "p.txt"],
    ]


def test_an_environment_that_is_there_is_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(environments, "_run", lambda words, _: _pretend(calls, words, tmp_path))
    first = environments.ensure_environment("gguf", tmp_path)
    made = len(calls)
    assert environments.ensure_environment("gguf", tmp_path) == first
    assert made == len(calls) == 3
    monkeypatch.setattr(environments, "requirements", lambda _: "torch==2.13.0\ngguf==9\n")
    environments.ensure_environment("gguf", tmp_path)
    assert len(calls) == 2 * made


def _pretend(calls: list[list[str]], words: list[str], folder: Path) -> None:
    calls.append(words)
    (folder / "env").mkdir(exist_ok=True)


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("Traceback …\nImportError: Requires mslk >= 1.0.0\n", "ImportError: Requires mslk >= 1.0.0"),
        ("a.b.SomeError: why\nsome warning at exit\n", "a.b.SomeError: why"),
        ("ERROR: No matching distribution found for x\n\n", "No matching distribution found for x"),
        ("NotImplementedError\n", "NotImplementedError"),
        ("loading\nKilled\n", "Killed"),
        ("", "it ended without a word"),
        ("ValueError: a | b\n", "ValueError: a / b"),
        ("\x1b[31;1mRuntimeError: no data\x1b[0m\n", "RuntimeError: no data"),
    ],
)
def test_the_cause_is_the_last_error(log: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(log, "utf-8")
    assert failure.find_cause(tmp_path / "log") == line


def test_a_long_cause_is_cut(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(f"ValueError: {'x' * 1000}", "utf-8")
    assert len(failure.find_cause(tmp_path / "log")) == failure.MAX_LENGTH


def test_a_failed_command_is_a_peer_error(tmp_path: Path) -> None:
    words = [sys.executable, "-c", "raise RuntimeError('no kernel')"]
    with pytest.raises(failure.PeerError, match="RuntimeError: no kernel"):
        press._measure_command(words, tmp_path)
    with pytest.raises(failure.PeerError, match="not installed: RuntimeError: no kernel"):
        environments._run_command(words, tmp_path / "log.txt")


def test_what_failed_is_tried_again_and_what_succeeded_is_not(tmp_path: Path) -> None:
    made = press.QuantizedRun("1.0", 4.5, 3.0, 10**9)
    with pytest.raises(failure.PeerError):
        press.load_or_run(tmp_path / "a", "key", _fail)
    assert press.load_or_run(tmp_path / "a", "key", lambda: made) == made
    assert press.load_or_run(tmp_path / "a", "key", _fail) == made
    (tmp_path / "a" / "evaluation").mkdir()
    other = dataclasses.replace(made, seconds=4.0)
    assert press.load_or_run(tmp_path / "a", "another key", lambda: other) == other
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["made.json"]


def _fail() -> press.QuantizedRun:
    raise failure.PeerError("no")


# ---------------------------------------------------------------- the table


def results(psnr: list[float | None], read: list[float]) -> Results:
    """Scores of pictures whose reference is always read."""
    scores = (Score(name="psnr", title="PSNR", unit="dB"),)
    texts = (Score(name="text_accuracy", title="text accuracy", unit="%"),)
    rows = tuple(_row(number, *values) for number, values in enumerate(zip(psnr, read, strict=True)))
    subject = SystemInfo(kind="diffusers", folder=FolderIdentity(path="", sha256="", files=0, bytes=0), dtype="float32")
    identity = RunIdentity(
        reference=subject,
        variants={CANDIDATE_NAME: subject},
        ground_truth=None,
        sampling=SamplingInfo(height=8, width=8, steps=1, guidance=0, num_seeds=1),
        prompt_set=None,
        prompts_sha256="",
        metrics={},
        libraries={},
        device="orin",
        image_folder="",
    )
    return Results(
        created="",
        edgepress="",
        identity=identity,
        stage_seconds={},
        metric_costs={},
        pair_scores=scores,
        image_scores=texts,
        unavailable_metrics={},
        reference_defects=(),
        variants={CANDIDATE_NAME: aggregate(select_variant(rows, CANDIDATE_NAME), scores, texts)},
        noise_floor=None,
        gates=(),
        strict=False,
        verdict=None,
        baseline=None,
        history=None,
        samples=rows,
    )


def _row(number: int, psnr: float | None, read: float) -> SampleResult:
    pictures = [ImageResult(file="", values={"text_accuracy": value}, notes={}, defect=None) for value in (1.0, read)]
    prompt = Prompt(id=f"p{number}", prompt="a", language="en")
    made = PairResult(identical=psnr is None, values={"psnr": psnr}, image=pictures[1])
    return SampleResult(
        prompt=prompt, seed=0, ground_truth=None, reference=pictures[0], variants={CANDIDATE_NAME: made}
    )


MADE = press.QuantizedRun("0.1", 4.15625, 41.6, 934_000_000)


def test_the_table_has_the_best_first_and_failures_last() -> None:
    best = TableEntry("**ours**", MADE, results([40.0, 42.0], [1.0, 1.0]))
    worse = TableEntry("theirs", MADE, results([39.0, 40.0], [1.0, 0.5]))
    failed = TableEntry("broken", error="ImportError: no")
    lines = render_peers_table([failed, worse, best], best).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["**ours** (0.1)", "theirs (0.1)", "broken"]
    cells = [cell.strip() for cell in lines[3].split("|")[1:-1]]
    assert cells == [
        "theirs (0.1)",
        "4.156",
        "39.50 [39.00, 40.00]",
        "1.50 [1.00, 2.00]",
        "25.0 [0.0, 50.0]",
        "42",
        "0.93",
    ]
    assert "not measured: ImportError: no" in lines[4]
    assert len({line.count("|") for line in lines}) == 1


def test_identical_pictures_are_left_out_of_the_difference() -> None:
    found = compare_paired_psnr(results([40.0, None, 43.0], [1.0] * 3), results([39.0, 40.0, 40.0], [1.0] * 3))
    assert (found.mean, found.count) == (2.0, 2)


def test_a_mean_of_one_has_no_interval() -> None:
    assert format_mean(MeanCI(mean=0.125, low=None, high=None, count=1), 100, 1) == "12.5"


# ---------------------------------------------------------------- the command


def test_the_command_says_what_it_takes() -> None:
    words = [sys.executable, "-m", "edgepress.benchmarks.peers", "--help"]
    shown_help = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert {"--limit", "--only", "--output"} <= set(re.findall(r"--\w+", shown_help))


def test_a_failed_peer_is_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    command = importlib.import_module("edgepress.benchmarks.peers.__main__")

    def refuse(*_: object) -> tuple[press.QuantizedRun, Path]:
        raise failure.PeerError("not installed: no such version")

    monkeypatch.setattr(command, "press_peer", refuse)
    entry = command._peer(catalog.PEERS[0], loader.load_recipe("orin"), 4, lambda *_: None)
    assert entry == TableEntry(catalog.PEERS[0].title, error="not installed: no such version")
    json.dumps(dataclasses.asdict(entry))
