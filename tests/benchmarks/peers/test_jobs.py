"""Jobs and outcomes survive JSON."""

from __future__ import annotations

from pathlib import Path

from edgepress.benchmarks.peers.workers.job import Batch, Outcome, QuantizeJob


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


def test_an_outcome_is_written_atomically(tmp_path: Path) -> None:
    outcome = Outcome(num_weights=1000, num_bits=4250, version="1.0", finished_at=12.5)
    outcome.write(tmp_path / "outcome.json")
    assert Outcome.read(tmp_path / "outcome.json") == outcome
    assert outcome.bits_per_weight == 4.25
    assert [file.name for file in tmp_path.iterdir()] == ["outcome.json"]
