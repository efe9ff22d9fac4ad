"""What all workers share: layers, bits and observed inputs. No peer is installed here."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

from edgepress.benchmarks.peers import workers
from edgepress.benchmarks.peers.workers import layers
from edgepress.benchmarks.peers.workers.job import QuantizeJob
from edgepress.numerics import affine, awq_packing
from edgepress.numerics.quant_spec import QuantSpec


def test_bits_of_stored_tensors() -> None:
    """Codes in half bytes, with a 16-bit scale and zero point for each group of 128, take 4.25 bits per weight."""
    codes = torch.zeros(256, 384 // 2, dtype=torch.uint8)
    qparams = torch.zeros(256, 384 // 128, 2, dtype=torch.bfloat16)
    assert layers.count_bits(codes, qparams) == 4.25 * 256 * 384
    assert layers.count_bits() == 0


def test_grouped_bits_equal_those_of_awq_tensors() -> None:
    weight = torch.randn(64, 256)
    packed = awq_packing.pack_awq(affine.quantize(weight, affine.minmax_qparams(weight, QuantSpec(group_size=128))))
    assert layers.count_grouped_bits(64 * 256, 64 * 2) == layers.count_bits(*packed)


class Text(nn.Module):
    """A component with an attention mask, like a text encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleList([nn.Linear(4, 2)])

    def forward(self, x: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        del attention_mask
        output: torch.Tensor = self.inner[0](x)
        return output


class Pipeline:
    def __init__(self) -> None:
        self.text_encoder = Text()


JOB = QuantizeJob("demo", {"text_encoder": ("inner.0",)}, "float32", (), {})


def test_layers_are_named_by_component_and_module() -> None:
    pipeline = Pipeline()
    assert list(layers.iter_linears(pipeline, JOB)) == [("text_encoder.inner.0", pipeline.text_encoder.inner[0])]


def test_observed_inputs_have_no_padding() -> None:
    pipeline, observed = Pipeline(), list[torch.Tensor]()
    x, mask = torch.randn(2, 3, 4), torch.tensor([[1, 1, 0], [1, 0, 0]])
    with layers.observe_inputs(pipeline, JOB, {"text_encoder.inner.0": observed.append}):
        pipeline.text_encoder(x, attention_mask=mask)
        pipeline.text_encoder(x)
    pipeline.text_encoder(x)
    assert [tuple(rows.shape) for rows in observed] == [(3, 4), (6, 4)]
    torch.testing.assert_close(observed[0], x[mask.bool()])


def test_workers_do_not_import_edgepress() -> None:
    """It is not installed in their environments, so no relative import may leave the folder."""
    for file in Path(workers.__file__).parent.glob("*.py"):
        assert not re.search(r"from \.\.|edgepress", file.read_text("utf-8").split('"""', 2)[2]), file
