"""Adam takes the steps of PyTorch's, with a rate for each tensor."""

from __future__ import annotations

import pytest
import torch

from edgepress.quantize.tuning.optimizer import BETA1, BETA2, EPSILON, WARMUP_STEPS, Adam, cosine_factor


def test_steps_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    start = {"a": torch.randn(5, generator=generator), "b": 100 * torch.randn(2, 3, generator=generator)}
    adam = Adam.create({name: tensor.clone() for name, tensor in start.items()}, 0.01, {})
    expected = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
    groups = [{"params": [tensor], "lr": 0.01 * float(start[name].abs().mean())} for name, tensor in expected.items()]
    reference = torch.optim.Adam(groups, betas=(BETA1, BETA2), eps=EPSILON)
    for _ in range(5):
        gradients = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in start.items()}
        adam.update(gradients, 1.0)
        for name, tensor in expected.items():
            tensor.grad = gradients[name].clone()
        reference.step()
    for name, tensor in expected.items():
        assert torch.allclose(adam.parameters[name], tensor, rtol=1e-5, atol=1e-7)


def test_a_tensor_of_zeros_stays_as_it_is() -> None:
    adam = Adam.create({"zeros": torch.zeros(3)}, 0.01, {})
    adam.update({"zeros": torch.ones(3)}, 1.0)
    assert not adam.parameters["zeros"].any()


def test_a_fixed_rate_does_not_depend_on_the_size() -> None:
    """The first step of Adam is the rate, whatever the gradient."""
    adam = Adam.create({"a": torch.full((3,), 100.0), "b": torch.full((3,), 100.0)}, 0.01, {"b": 0.25})
    adam.update({"a": torch.ones(3), "b": torch.ones(3)}, 1.0)
    assert adam.parameters["a"].tolist() == pytest.approx([99.0] * 3)
    assert adam.parameters["b"].tolist() == pytest.approx([99.75] * 3)


def test_the_rate_rises_and_falls_to_zero() -> None:
    factors = [cosine_factor(step, 100) for step in range(1, 101)]
    assert factors[0] == pytest.approx(1 / WARMUP_STEPS)
    assert factors[WARMUP_STEPS - 1] == factors[WARMUP_STEPS] == max(factors) == 1
    assert factors[WARMUP_STEPS - 1 :] == sorted(factors[WARMUP_STEPS - 1 :], reverse=True)
    assert cosine_factor(61, 100) == pytest.approx(0.5)
    assert 0 < factors[-1] < 0.01


@pytest.mark.parametrize("total", [1, 2, 3])
def test_few_steps_have_rates_too(total: int) -> None:
    assert all(0 < cosine_factor(step, total) <= 1 for step in range(1, total + 1))
