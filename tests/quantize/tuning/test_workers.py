"""Gradients of many samples are those of one batch, to the bit with any number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from edgepress.numerics.affine import minmax_qparams, quantize
from edgepress.numerics.awq_packing import pack_awq
from edgepress.numerics.quant_spec import QuantSpec
from edgepress.quantize.threads import single_threaded
from edgepress.quantize.tuning.calls import DenoiserCall
from edgepress.quantize.tuning.trainable import TrainableModel
from edgepress.quantize.tuning.workers import open_workers

WIDTH, GROUP = 64, 32


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(WIDTH, WIDTH, bias=False), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 8)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.last(torch.tanh(self.norm(self.first(x)))),)


def make_model() -> TrainableModel:
    """A denoiser whose first linear is quantized."""
    torch.manual_seed(0)
    tensors = {name: tensor.detach() for name, tensor in Denoiser().state_dict().items()}
    weight = tensors.pop("first.weight")
    packed = pack_awq(quantize(weight, minmax_qparams(weight, QuantSpec(group_size=GROUP))))
    tensors |= {f"first.{kind}": tensor for kind, tensor in packed._asdict().items()}
    tensors["last.weight"] = tensors["last.weight"].bfloat16()
    with torch.device("meta"):
        module = Denoiser().eval()
    return TrainableModel.load(module, tensors)


def make_samples(count: int) -> list[DenoiserCall]:
    generator = torch.Generator().manual_seed(1)
    return [
        DenoiserCall({"x": torch.randn(1, WIDTH, generator=generator)}, torch.randn(1, 8, generator=generator), n % 2)
        for n in range(count)
    ]


@pytest.fixture(autouse=True)
def _single_threaded() -> Iterator[None]:
    with single_threaded():
        yield


def compute(
    model: TrainableModel, num_threads: int, dtype: torch.dtype = torch.float32
) -> tuple[float, dict[str, Tensor]]:
    with open_workers(model, num_threads, 2, dtype) as workers:
        return workers.compute_gradients(make_samples(9), [1.0, 3.0])


def test_gradients_are_those_of_a_batch_written_out() -> None:
    model = make_model()
    loss, gradients = compute(model, 1)
    values = {name: tensor.clone().requires_grad_() for name, tensor in model.parameters.items()}
    weight = (model.codes["first"].float() * values["first.scales"][..., None]).flatten(1)
    samples = make_samples(9)
    x, target = torch.cat([call.arguments["x"] for call in samples]), torch.cat([call.output for call in samples])
    hidden = nn.functional.layer_norm(x @ weight.T, (WIDTH,), values["norm.weight"], values["norm.bias"])
    output = torch.tanh(hidden) @ values["last.weight"].T + values["last.bias"]
    factors = torch.tensor([1.0, 3.0]).repeat(5)[:9]
    expected = ((output - target).square().mean(1) * factors).mean()
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    assert gradients.keys() == values.keys()
    for name, value in values.items():
        assert value.grad is not None
        assert torch.allclose(gradients[name], value.grad, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize("num_threads", [2, 5])
def test_the_number_of_threads_changes_nothing(num_threads: int) -> None:
    loss, gradients = compute(make_model(), 1)
    parallel_loss, parallel = compute(make_model(), num_threads)
    assert loss == parallel_loss
    assert all(torch.equal(gradient, parallel[name]) for name, gradient in gradients.items())


def test_errors_are_those_of_single_samples() -> None:
    model = make_model()
    with open_workers(model, 2, 2, torch.float32) as workers:
        errors = workers.compute_errors(make_samples(5))
    for error, call in zip(errors, make_samples(5), strict=True):
        with torch.no_grad():
            expected = (model.module(**call.arguments)[0] - call.output).square().mean()
        assert error == pytest.approx(float(expected), rel=1e-5)


def test_an_error_in_a_thread_is_raised() -> None:
    samples = [DenoiserCall({"x": torch.zeros(1, 3)}, torch.zeros(1, 8), 0)]
    with open_workers(make_model(), 1, 1, torch.float32) as workers, pytest.raises(RuntimeError, match="shape"):
        workers.compute_errors(samples)


def test_gradients_of_products_in_bfloat16_are_near() -> None:
    _, exact = compute(make_model(), 1)
    _, rounded = compute(make_model(), 1, torch.bfloat16)
    for name, gradient in exact.items():
        assert (rounded[name] - gradient).norm() < 0.05 * gradient.norm(), name
