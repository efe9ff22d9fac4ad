"""Which prompts are held out, and that their tokens validate and are in no statistics."""

from __future__ import annotations

import pytest
import torch

from edgepress.prompts.prompt import Prompt
from edgepress.quantize.calibration.statistics import ActivationStats, compute_power_floor, normalize_tokens
from edgepress.quantize.calibration.validation_split import plan_batches


def make_prompts(count: int) -> list[Prompt]:
    return [Prompt(id=f"p{number}", prompt="a cat", language="en") for number in range(count)]


@pytest.mark.parametrize(
    ("count", "held_out"),
    [(1, []), (2, ["p1"]), (3, ["p2"]), (4, ["p3"]), (9, ["p3", "p7"]), (12, ["p3", "p7", "p11"])],
)
def test_every_fourth_prompt_is_held_out_and_none_is_lost(count: int, held_out: list[str]) -> None:
    batches = plan_batches(make_prompts(count), 2, validates=True)
    assert [prompt.id for batch in batches if batch.validates for prompt in batch.prompts] == held_out
    assert sorted(prompt.id for batch in batches for prompt in batch.prompts) == sorted(f"p{i}" for i in range(count))
    assert all(1 <= len(batch.prompts) <= 2 for batch in batches)
    assert [batch.validates for batch in batches] == sorted(batch.validates for batch in batches)


def test_without_validation_batches_are_those_of_all_prompts_in_order() -> None:
    batches = plan_batches(make_prompts(5), 2, validates=False)
    assert [[prompt.id for prompt in batch.prompts] for batch in batches] == [["p0", "p1"], ["p2", "p3"], ["p4"]]
    assert not any(batch.validates for batch in batches)


def test_normalized_tokens_count_alike_whatever_their_size() -> None:
    """A token a thousand times as large changes H no more than others; one of almost zeros stays small."""
    tokens = torch.randn(600, 32, generator=torch.Generator().manual_seed(0))
    large = tokens * torch.where(torch.arange(600) % 50 == 0, 1000.0, 1.0)[:, None]
    stats = {}
    for name, x in (("plain", tokens), ("large", large)):
        stats[name] = ActivationStats.empty(32, torch.zeros(32, 32))
        stats[name].add(x, normalized=True)
    trace = {name: float(value.hessian.diagonal().mean()) / value.count for name, value in stats.items()}  # type: ignore[union-attr]
    assert trace["plain"] == pytest.approx(1, rel=1e-2)
    assert trace["large"] <= trace["plain"]
    torch.testing.assert_close(stats["large"].abs_sum, large.abs().sum(0))  # other statistics are of tokens as they are
    tiny = torch.full((1, 32), 1e-9)
    floor = compute_power_floor(torch.cat([tokens, tiny]))
    assert float(normalize_tokens(tiny, floor).square().mean()) < 1e-3
    assert torch.equal(normalize_tokens(torch.zeros(2, 32), 0.0), torch.zeros(2, 32))
