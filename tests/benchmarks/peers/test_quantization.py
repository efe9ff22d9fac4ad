"""Quantizing with a peer or with edgepress: jobs, a worker in its process, stored bits and the cache."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from edgepress.benchmarks.peers import catalog, environments, errors, quantization, scoring
from edgepress.benchmarks.peers.quantization import QuantizedRun
from edgepress.numerics import affine, awq_packing
from edgepress.numerics.quant_spec import QuantSpec
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.recipes.loader import load_recipe
from edgepress.storage.checkpoint import Checkpoint


@pytest.mark.slow
def test_a_job_has_the_layers_and_the_calibration_of_edgepress() -> None:
    recipe = load_recipe("orin")
    peer = next(peer for peer in catalog.PEERS if peer.calibrates)
    job = quantization.make_job(peer, recipe)
    assert set(job.layers) == {"transformer", "text_encoder"}
    assert all(
        f"{name}.weight" in Checkpoint(DEMO_PIPELINE / component)
        for component, names in job.layers.items()
        for name in names
    )
    assert sum(len(batch.prompts) for batch in job.calibration) == recipe.calibration.count
    assert len({seed for batch in job.calibration for seed in batch.seeds}) == recipe.calibration.count
    without_calibration = quantization.make_job(dataclasses.replace(peer, calibrates=False), recipe)
    assert without_calibration == dataclasses.replace(job, calibration=())


@pytest.mark.slow
def test_stored_bits_are_read_from_the_artifact(tmp_path: Path) -> None:
    """The demo's layers, rounded to nearest."""
    recipe = load_recipe("orin")
    job = quantization.make_job(catalog.PEERS[0], recipe)
    for component, names in job.layers.items():
        source, packed = Checkpoint(DEMO_PIPELINE / component), {}
        for name in names:
            weight = source.load_tensor(f"{name}.weight").float()
            tensors = awq_packing.pack_awq(
                affine.quantize(weight, affine.minmax_qparams(weight, QuantSpec(group_size=128)))
            )._asdict()
            packed |= {f"{name}.{kind}": tensor for kind, tensor in tensors.items()}
        (tmp_path / component).mkdir()
        scoring.write_sharded(packed.items(), tmp_path / component, "model")
    assert quantization.measure_bits_per_weight(tmp_path, recipe) == awq_packing.bits_per_weight(128)


@pytest.mark.slow
def test_a_worker_runs_in_its_own_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer halves the weights. It runs with this interpreter instead of one of its own environment."""
    workers = tmp_path / "peers" / "workers"
    workers.mkdir(parents=True)
    for file in (quantization.FOLDER / "workers").glob("*.py"):
        (workers / file.name).write_text(file.read_text("utf-8"), "utf-8")
    (workers / "halver.py").write_text(HALVER, "utf-8")
    (tmp_path / "peers" / "halver.txt").write_text("torch==0\n", "utf-8")
    monkeypatch.setattr(quantization, "FOLDER", tmp_path / "peers")
    monkeypatch.setattr(environments, "FOLDER", tmp_path / "peers")
    monkeypatch.setattr(quantization, "ensure_environment", lambda *_: Path(sys.executable))
    peer = catalog.Peer("plain", "halver", "halver", "Halver", {"factor": 0.5})
    run, folder = quantization.quantize_with_peer(peer, load_recipe("orin"), tmp_path / "build")
    assert run.bits_per_weight == 16
    assert 0 < run.seconds < 600
    assert run.peak_memory > 10**8
    weights = scoring.load_file(folder / "layers.safetensors")
    name = next(iter(weights))
    component, layer = name.split(".", 1)
    torch.testing.assert_close(
        weights[name], Checkpoint(DEMO_PIPELINE / component).load_tensor(f"{layer}.weight").float() / 2
    )
    monkeypatch.setattr(quantization, "ensure_environment", _fail_if_called)
    assert quantization.quantize_with_peer(peer, load_recipe("orin"), tmp_path / "build") == (run, folder)


HALVER = """
from .layers import DequantizedLayer, count_bits, iter_linears

PACKAGE = "torch"


def quantize(pipeline, job):
    return job.options["factor"]


def read(pipeline, job, factor):
    for name, module in iter_linears(pipeline, job):
        yield name, DequantizedLayer(module.weight * factor, count_bits(module.weight))
"""


def _fail_if_called(*_: object) -> Path:
    raise AssertionError("an earlier result was not reused")


def test_a_failed_command_raises_a_peer_error(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise RuntimeError('no kernel')"]
    with pytest.raises(errors.PeerError, match="RuntimeError: no kernel"):
        quantization._measure_command(command, tmp_path)
    with pytest.raises(errors.PeerError, match="installation failed: RuntimeError: no kernel"):
        environments._run_command(command, tmp_path / "log.txt")


def test_only_successful_runs_are_cached(tmp_path: Path) -> None:
    run = QuantizedRun("1.0", 4.5, 3.0, 10**9)
    with pytest.raises(errors.PeerError):
        quantization.load_or_run(tmp_path / "a", "key", _fail)
    assert quantization.load_or_run(tmp_path / "a", "key", lambda: run) == run
    assert quantization.load_or_run(tmp_path / "a", "key", _fail) == run
    (tmp_path / "a" / "evaluation").mkdir()
    changed = dataclasses.replace(run, seconds=4.0)
    assert quantization.load_or_run(tmp_path / "a", "another key", lambda: changed) == changed
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["run.json"]


def _fail() -> QuantizedRun:
    raise errors.PeerError("no")
