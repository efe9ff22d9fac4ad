"""Training keeps the best of what it validates, ends when that gets no better, and resumes to the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgepress.numerics.affine import minmax_qparams, quantize
from edgepress.numerics.awq_packing import pack_awq
from edgepress.numerics.quant_spec import QuantSpec
from edgepress.quantize.threads import single_threaded
from edgepress.quantize.tuning import trainer as trainer_module
from edgepress.quantize.tuning.budget import BATCH
from edgepress.quantize.tuning.calls import DenoiserCall
from edgepress.quantize.tuning.samples import Samples
from edgepress.quantize.tuning.trainable import TrainableModel
from edgepress.quantize.tuning.trainer import Trainer, select_batch
from edgepress.quantize.tuning.workers import open_workers

WIDTH = 64
WEIGHT = torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(0))


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, 8)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.linear(x),)


def make_model() -> TrainableModel:
    packed = pack_awq(quantize(WEIGHT, minmax_qparams(WEIGHT, QuantSpec(group_size=32))))._asdict()
    tensors = {f"linear.{kind}": tensor for kind, tensor in packed.items()} | {"linear.bias": torch.ones(8)}
    with torch.device("meta"):
        module = Denoiser().eval()
    return TrainableModel.load(module, tensors)


def make_samples(noise: float = 0.0) -> Samples:
    """Samples of the weight that was quantized, and of outputs with noise that cannot be learned."""
    generator = torch.Generator().manual_seed(1)

    def make(count: int) -> list[DenoiserCall]:
        inputs = torch.randn(count, 1, WIDTH, generator=generator)
        outputs = inputs @ WEIGHT.T + noise * torch.randn(count, 1, 8, generator=generator)
        return [DenoiserCall({"x": x}, y, 0) for x, y in zip(inputs, outputs, strict=True)]

    return Samples(make(40), make(10), 5, 1)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(trainer_module, "VALIDATION_INTERVAL", 10)
    monkeypatch.setattr(trainer_module, "SAVE_INTERVAL_S", 0)
    with single_threaded():
        yield


def train(file: Path, steps: int = 60, rate: float = 0.05, samples: Samples | None = None, until: int = 0) -> Trainer:
    """Trains; if `until` is given, the run is interrupted after that step."""
    model = make_model()

    def report(step: int) -> None:
        if until and step == until:
            raise KeyboardInterrupt

    with open_workers(model, 1, 4, torch.float32) as workers:
        trainer = Trainer(model, workers, samples or make_samples(), steps, rate, file)
        trainer.run(report)
    return trainer


def test_training_lowers_the_error_on_other_samples(tmp_path: Path) -> None:
    course = train(tmp_path / "state").course
    assert course.best_step > 0
    assert course.validation[course.best_step] == min(course.validation.values()) < 0.5 * course.validation[0]


def test_the_best_is_what_was_validated(tmp_path: Path) -> None:
    trainer = train(tmp_path / "state")
    model = make_model()
    model.set_parameters(trainer.best)
    with torch.no_grad():
        errors = [
            float((model.module(**call.arguments)[0] - call.output).square().mean())
            for call in make_samples().validation
        ]
    best = trainer.course.validation[trainer.course.best_step]
    assert sum(errors) / len(errors) == pytest.approx(best, rel=1e-5)
    stored = model.to_stored(trainer.best)["linear.scales"].T.float()
    assert torch.equal(stored, trainer.best["linear.scales"])


def test_training_ends_where_validation_gets_no_better(tmp_path: Path) -> None:
    course = train(tmp_path / "state", steps=400, rate=0.5).course
    assert course.best_step + 10 * trainer_module.PATIENCE == max(course.validation) < 400


def test_without_any_gain_everything_stays_as_it_was(tmp_path: Path) -> None:
    trainer = train(tmp_path / "state", steps=30, rate=1e3)
    assert trainer.course.best_step == 0
    before = make_model().round_parameters()
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainer.best.items())


@pytest.mark.parametrize("until", [1, 10, 37])
def test_a_run_that_was_interrupted_resumes_to_the_same_bits(tmp_path: Path, until: int) -> None:
    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "state", until=until)
    resumed = train(tmp_path / "state")
    assert resumed.course == whole.course
    assert all(torch.equal(tensor, resumed.best[name]) for name, tensor in whole.best.items())


def test_a_finished_state_takes_no_step(tmp_path: Path) -> None:
    whole = train(tmp_path / "state")
    steps: list[int] = []
    model = make_model()
    with open_workers(model, 1, 4, torch.float32) as workers:
        again = Trainer(model, workers, make_samples(), 60, 0.05, tmp_path / "state")
        again.run(steps.append)
    assert steps == [60]
    assert again.course == whole.course


def test_every_sample_is_used_as_often_as_the_others() -> None:
    samples = make_samples().train
    counts = {id(call): 0 for call in samples}
    for step in range(len(samples)):  # as many batches as it takes to use every sample as often as a batch is large
        for call in select_batch(step, samples):
            counts[id(call)] += 1
    assert set(counts.values()) == {BATCH}
