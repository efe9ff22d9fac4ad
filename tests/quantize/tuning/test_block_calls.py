"""What blocks read and return is recorded, and what one block hands on to another can be replaced."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from edgepress.quantize.tuning.block_calls import (
    BlockFiles,
    BlockRecorder,
    RecordedImage,
    load_block_call,
    record_blocks,
    save_output,
)


class Block(nn.Module):
    """Reads two streams and returns both."""

    def forward(self, x: Tensor, y: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        return x + scale * y, y * 2


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = self.blocks[0](x, y)
        x, y = self.blocks[1](x, y=y, scale=3.0)
        x, _ = self.blocks[2](torch.cat([x, x]), torch.cat([y, y]))
        return x


BLOCKS = ["blocks.0", "blocks.1", "blocks.2"]
X, Y = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]])


def record(folder: Path, calls: int = 1) -> tuple[BlockFiles, BlockRecorder]:
    files = BlockFiles(folder / "reference", folder / "quantized")
    denoiser, recorder = Denoiser(), BlockRecorder(files, image=4)
    with record_blocks(denoiser, BLOCKS, recorder):
        for _ in range(calls):
            denoiser(X, Y)
    denoiser(X, Y)
    return files, recorder


def test_calls_and_blocks_are_counted_while_recording(tmp_path: Path) -> None:
    _, recorder = record(tmp_path, calls=2)
    assert recorder.calls == 2
    assert recorder.order == BLOCKS


def test_what_a_block_read_and_returned_is_stored(tmp_path: Path) -> None:
    files, _ = record(tmp_path)
    call = load_block_call(files, 4, 0, "blocks.0")
    assert torch.equal(call.arguments["x"], X)
    assert torch.equal(call.arguments["y"], Y)
    assert torch.equal(call.output, torch.cat([X + Y, 2 * Y], 1))


def test_the_output_of_a_quantized_block_is_what_the_next_one_reads(tmp_path: Path) -> None:
    files, _ = record(tmp_path)
    save_output(files, 4, 0, "blocks.0", (X * 10, Y * 10), torch.float32)
    call = load_block_call(files, 4, 0, "blocks.1")
    assert torch.equal(call.arguments["x"], X * 10)
    assert torch.equal(call.arguments["y"], Y * 10)
    assert call.arguments["scale"] == 3.0
    assert torch.equal(call.output, torch.cat([X + Y + 3 * 2 * Y, 4 * Y], 1))


def test_what_was_changed_between_blocks_is_as_the_reference_had_it(tmp_path: Path) -> None:
    files, _ = record(tmp_path)
    call = load_block_call(files, 4, 0, "blocks.2")
    assert torch.equal(call.arguments["x"], torch.cat([X + 7 * Y] * 2))


def test_an_image_counts_once_it_is_finished(tmp_path: Path) -> None:
    files, recorder = record(tmp_path)
    assert files.load_record(4) is None
    done = RecordedImage(recorder.calls, 123, recorder.order)
    files.save_record(4, done)
    assert files.load_record(4) == done
