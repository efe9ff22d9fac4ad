"""A candidate is the demo with other weights."""

from __future__ import annotations

from pathlib import Path

import torch

from edgepress.benchmarks.peers import scoring
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.storage.checkpoint import Checkpoint


def test_a_candidate_is_the_demo_with_replaced_weights(tmp_path: Path) -> None:
    name = "layers.0.attention.to_q"
    new = torch.full(Checkpoint(DEMO_PIPELINE / "transformer").shape(f"{name}.weight"), 0.25)
    scoring.write_candidate({f"transformer.{name}": new}, ("transformer", "text_encoder"), tmp_path / "model")
    candidate, source = Checkpoint(tmp_path / "model" / "transformer"), Checkpoint(DEMO_PIPELINE / "transformer")
    assert torch.equal(candidate.load_tensor(f"{name}.weight"), new)
    assert sorted(candidate.names()) == sorted(source.names())
    assert torch.equal(
        candidate.load_tensor("layers.1.attention.to_q.weight"), source.load_tensor("layers.1.attention.to_q.weight")
    )
    assert (tmp_path / "model" / "vae" / "config.json").is_symlink()
    assert {path.relative_to(tmp_path / "model") for path in (tmp_path / "model").rglob("*")} == {
        path.relative_to(DEMO_PIPELINE) for path in DEMO_PIPELINE.rglob("*")
    }
