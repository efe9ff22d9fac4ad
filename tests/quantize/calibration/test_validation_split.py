"""Which prompts are held out, and that their tokens validate and are in no statistics."""

from __future__ import annotations

import pytest
import torch

from edgepress.prompts.prompt import Prompt
from edgepress.quantize.calibration.statistics import ActivationStats, compute_power_floor, normalize_tokens
from edgepress.quantize.calibration.validation_split import plan_batches, split_prompts


def make_prompts(count: int) -> list[Prompt]:
    return [Prompt(id=f"p{number}", prompt="a cat", language="en") for number in range(count)]


@pytest.mark.parametrize(
    ("count", "num_images", "held_out"),
    [
        (1, 1, []),
        (2, 2, ["p1"]),
        (3, 3, ["p2"]),
        (8, 8, ["p3", "p7"]),
        (8, 32, ["p3", "p7"]),
        (2, 1, ["p1"]),
        (12, 4, ["p4"]),
        (12, 8, ["p8", "p9"]),
        (12, 11, ["p3", "p7"]),
    ],
)
def test_prompts_after_those_of_images_are_held_out_or_else_every_fourth(
    count: int, num_images: int, held_out: list[str]
) -> None:
    prompts = make_prompts(count)
    split = split_prompts(prompts, num_images, validates=True)
    assert [prompt.id for prompt in split.held_out] == held_out
    assert [prompt for prompt in prompts if prompt not in split.held_out] == list(split.texts)
    assert [prompt for prompt in prompts[:num_images] if prompt not in split.held_out] == list(split.images)
    assert split.images
    batches = plan_batches(split.texts, split.held_out, 2)
    assert [prompt.id for batch in batches if batch.validates for prompt in batch.prompts] == held_out
    assert [prompt for batch in batches if not batch.validates for prompt in batch.prompts] == list(split.texts)
    assert all(1 <= len(batch.prompts) <= 2 for batch in batches)
    assert [batch.validates for batch in batches] == sorted(batch.validates for batch in batches)


def test_without_validation_nothing_is_held_out() -> None:
    split = split_prompts(make_prompts(5), 3, validates=False)
    assert [len(part) for part in (split.images, split.texts, split.held_out)] == [3, 5, 0]


def test_large_tokens_count_less_than_their_squares_and_means_have_the_same_weights() -> None:
    """Tokens a hundred times as large count a hundred times as much, and not ten thousand times."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(600, 32, generator=generator)
    tokens /= tokens.square().mean(1, keepdim=True).sqrt()
    sizes = torch.where(torch.arange(600) % 2 == 0, 100.0, 1.0)[:, None]
    stats = ActivationStats.empty(32, torch.zeros(32, 32))
    stats.add(tokens * sizes, normalized=True)
    floor = compute_power_floor(tokens * sizes)
    weights = (sizes.double().square() + floor).rsqrt()  # powers are the squares of the sizes
    x = (tokens * sizes).double()
    assert stats.hessian is not None
    torch.testing.assert_close(stats.hessian.double(), (x * weights).T @ x, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(stats.abs_sum, (tokens * sizes).abs().sum(0), rtol=1e-5, atol=1e-3)
    mean = (x * weights).sum(0) / weights.sum()
    torch.testing.assert_close(stats.mean.value().double(), mean, rtol=1e-4, atol=1e-4)
    centered = normalize_tokens(tokens * sizes, floor, mean.float()).double()
    expected = stats.hessian.double() - weights.sum() * mean[:, None] * mean
    torch.testing.assert_close(centered.T @ centered, expected, rtol=1e-3, atol=1e-1)
    assert torch.equal(normalize_tokens(torch.zeros(2, 32), 0.0), torch.zeros(2, 32))
