"""Calls of a denoiser are recorded, stored, split into samples and joined again without a change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgepress.quantize.tuning.calls import DenoiserCall, join_calls, load_calls, record_calls, save_calls, split_call


class Denoiser(nn.Module):
    """Takes all that denoisers of diffusers take: tensors, lists for each image, dicts, and what all images share."""

    def forward(
        self, x: Tensor, t: Tensor, prompts: list[Tensor], ids: Tensor, extra: dict[str, Tensor], flag: bool = False
    ) -> tuple[Tensor]:
        means = torch.stack([prompt.mean() for prompt in prompts])
        return ((x + t[:, None] + means[:, None] + extra["size"]) * ids.sum() * (2 if flag else 1),)


def make_arguments(size: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(size)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    prompts = [draw(length, 3) for length in range(2, 2 + size)]
    ids = torch.arange(7.0)
    return {"x": draw(size, 5), "t": draw(size), "prompts": prompts, "ids": ids, "extra": {"size": draw(size, 1)}}


def record(size: int, times: int = 1) -> tuple[Denoiser, list[DenoiserCall]]:
    denoiser = Denoiser()
    with record_calls(denoiser) as calls:
        for _ in range(times):
            denoiser(**make_arguments(size))
    return denoiser, calls


def test_calls_are_counted_and_the_denoiser_is_as_before() -> None:
    denoiser, calls = record(2, times=3)
    assert [call.step for call in calls] == [0, 1, 2]
    assert len(calls) == 3
    denoiser(**make_arguments(2))
    assert len(calls) == 3


def test_positional_arguments_get_their_names() -> None:
    denoiser = Denoiser()
    arguments = make_arguments(2)
    with record_calls(denoiser) as calls:
        denoiser(arguments.pop("x"), **arguments)
    assert set(calls[0].arguments) == {"x", "t", "prompts", "ids", "extra"}


def test_every_sample_alone_gives_its_part_of_the_output() -> None:
    denoiser, (call,) = record(3)
    samples = split_call(call)
    assert len(samples) == 3
    for index, sample in enumerate(samples):
        assert torch.equal(denoiser(**sample.arguments)[0], call.output[index : index + 1])


def test_joined_samples_give_the_output_of_all() -> None:
    denoiser, (call,) = record(3)
    ((joined, steps),) = join_calls(split_call(call))
    assert steps == [0, 0, 0]
    assert torch.equal(joined.output, call.output)
    assert torch.equal(denoiser(**joined.arguments)[0], call.output)


def test_calls_that_differ_in_what_samples_share_are_not_joined() -> None:
    (call,) = record(3)[1]
    first, second, third = split_call(call)
    changed = DenoiserCall({**second.arguments, "flag": True}, second.output, 1)
    assert [steps for _, steps in join_calls([first, changed, third])] == [[0], [1], [0]]
    longer = DenoiserCall({**second.arguments, "ids": torch.arange(8.0)}, second.output, 1)
    assert len(join_calls([first, longer])) == 2


def test_stored_calls_are_the_same(tmp_path: Path) -> None:
    calls = record(2, times=2)[1]
    save_calls(calls, tmp_path / "calls.pt")
    for call, stored in zip(calls, load_calls(tmp_path / "calls.pt"), strict=True):
        assert stored.step == call.step
        assert torch.equal(stored.output, call.output)
        assert torch.equal(stored.arguments["x"], call.arguments["x"])
        assert torch.equal(stored.arguments["prompts"][1], call.arguments["prompts"][1])
