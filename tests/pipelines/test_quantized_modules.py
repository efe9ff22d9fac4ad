"""Modules with quantized weights: they compute what dense modules with the dequantized weights compute."""

from __future__ import annotations

import gc

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgepress.numerics import affine, awq_packing
from edgepress.numerics.int4_matmul import cpu_channel_order
from edgepress.numerics.int8_rows import dequantize_rows, quantize_rows
from edgepress.pipelines.quantized_modules import Int4Linear, Int8Conv, Int8Embedding, replace_convolutions

GROUP_SIZE = 64


# ---------------------------------------------------------------- one layer


def random_layer(
    out: int, inner: int, group_size: int, bias: bool, zero_point: bool = True
) -> tuple[Int4Linear, Tensor]:
    """A layer with random codes, and the dense weight that they represent."""
    generator = torch.Generator().manual_seed(out + inner)
    weight = torch.randn(out, inner, generator=generator) / inner**0.5
    quantized = affine.quantize(
        weight, affine.minmax_qparams(weight, affine.QuantSpec(group_size=group_size, symmetric=not zero_point))
    )
    layer = Int4Linear(inner, out, group_size, bias)
    state: dict[str, Tensor] = dict(awq_packing.pack_awq(quantized)._asdict())
    if bias:
        state["bias"] = torch.randn(out, generator=generator)
    layer.load_state_dict(state)
    return layer, affine.dequantize(quantized)


def random_inputs(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 128), (2, 5, 128), (128,)])
def test_float32_outputs_equal_those_of_the_dequantized_weight(bias: bool, shape: tuple[int, ...]) -> None:
    layer, weight = random_layer(24, 128, GROUP_SIZE, bias)
    x = random_inputs(*shape)
    error = float((layer(x) - F.linear(x, weight, layer.bias)).abs().max())
    assert error <= 1e-6, f"off by {error}"
    assert layer(x).dtype == torch.float32


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("zero_point", [True, False])
@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("shape", [(5, 256), (2, 3, 256), (256,)])
@pytest.mark.parametrize("out", [64, 24])  # the CPU's INT4 kernel supports multiples of 64; others are dequantized
def test_bfloat16_outputs_equal_them_within_rounding(
    out: int, shape: tuple[int, ...], group_size: int, zero_point: bool, bias: bool
) -> None:
    """Inputs, scales and outputs are rounded to 8 bits: some parts in a thousand of the output's size."""
    layer, weight = random_layer(out, 256, group_size, bias, zero_point)
    x = random_inputs(*shape, dtype=torch.bfloat16)
    actual, expected = (
        layer(x),
        F.linear(x.double(), weight.double(), None if layer.bias is None else layer.bias.double()),
    )
    assert actual.dtype == torch.bfloat16
    assert actual.shape == expected.shape
    error = float((actual - expected).norm() / expected.norm())
    assert error < 6e-3, f"relative error {error}"


def test_float16_inputs_are_supported() -> None:
    layer, weight = random_layer(32, 128, GROUP_SIZE, bias=True)
    x = random_inputs(4, 128, dtype=torch.float16)
    expected = F.linear(x.double(), weight.double(), layer.get_buffer("bias").double())
    error = float((layer(x) - expected).norm() / expected.norm())
    assert layer(x).dtype == torch.float16
    assert error < 2e-3, f"relative error {error}"


def test_the_dtype_may_change_between_calls() -> None:
    layer, weight = random_layer(64, 128, GROUP_SIZE, bias=False)
    x = random_inputs(4, 128)
    for dtype, limit in ((torch.bfloat16, 6e-3), (torch.float32, 1e-6), (torch.bfloat16, 6e-3)):
        expected = F.linear(x.to(dtype).float(), weight)
        error = float((layer(x.to(dtype)).float() - expected).norm() / expected.norm())
        assert error < limit, f"relative error {error} in {dtype}"


def test_the_dequantized_weight_is_bit_exact() -> None:
    layer, weight = random_layer(24, 128, GROUP_SIZE, bias=False)
    assert torch.equal(layer.dequantize(), weight)


def test_the_state_has_the_layout_of_the_file() -> None:
    layer, _ = random_layer(32, 128, GROUP_SIZE, bias=True)
    layer(random_inputs(1, 128, dtype=torch.bfloat16))
    shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in layer.state_dict().items()}
    assert shapes == {
        "qweight": ((128, 4), torch.int32),
        "qzeros": ((2, 4), torch.int32),
        "scales": ((2, 32), torch.float16),
        "bias": ((32,), torch.float32),
    }
    assert list(layer.parameters()) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_new_values_are_used_at_once(dtype: torch.dtype) -> None:
    layer, _ = random_layer(64, 128, GROUP_SIZE, bias=True)
    second, weight = random_layer(64, 128, GROUP_SIZE, bias=True, zero_point=False)
    x = random_inputs(3, 128, dtype=dtype)
    layer(x)
    layer.load_state_dict(second.state_dict())
    assert torch.equal(layer(x), second(x))
    assert torch.equal(layer.dequantize(), weight)


@pytest.mark.parametrize("rows", [1, 100])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_product_leaves_only_its_result_in_memory(rows: int, dtype: torch.dtype) -> None:
    layer, _ = random_layer(64, 128, GROUP_SIZE, bias=True)
    cpu_channel_order()  # cached for all layers
    x = random_inputs(rows, 128, dtype=dtype)
    gc.freeze()  # the collector passes over what there is, which takes seconds to look through
    try:
        out = layer(x)
        gc.collect()
        left = [tensor for tensor in gc.get_objects() if issubclass(type(tensor), Tensor)]
    finally:
        gc.unfreeze()
    assert [id(tensor) for tensor in left] == [id(out)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_casting_the_model_does_not_cast_the_scales(dtype: torch.dtype) -> None:
    layer, weight = random_layer(64, 128, GROUP_SIZE, bias=True)
    nn.Sequential(layer).to(dtype)
    assert layer.scales.dtype == torch.float16
    assert layer.get_buffer("bias").dtype == dtype
    assert torch.equal(layer.dequantize(), weight)


# ---------------------------------------------------------------- one embedding


def random_embedding(
    rows: int = 16, width: int = 8, dtype: torch.dtype = torch.float32
) -> tuple[Int8Embedding, Tensor]:
    """An embedding with random codes, and the dense weight that they represent."""
    quantized = quantize_rows(torch.randn(rows, width, generator=torch.Generator().manual_seed(rows)))
    layer = Int8Embedding(rows, width, dtype)
    layer.load_state_dict(quantized._asdict())
    return layer, dequantize_rows(quantized)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,)])
def test_an_embedding_equals_that_of_the_dequantized_weight(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    layer, weight = random_embedding(dtype=dtype)
    ids = torch.randint(16, shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer(ids), F.embedding(ids, weight.to(dtype)))
    assert layer(ids).dtype == dtype


def test_casting_the_model_casts_an_embeddings_output_but_not_its_scales() -> None:
    layer, weight = random_embedding()
    nn.Sequential(layer).to(torch.bfloat16)
    assert layer.scales.dtype == torch.float16
    assert torch.equal(layer(torch.arange(16)), weight.bfloat16())


# ---------------------------------------------------------------- one convolution


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("conv", "shape"),
    [
        (nn.Conv1d(4, 6, 3, padding="same"), (9,)),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (8, 7)),
        (nn.Conv2d(4, 6, 1, bias=False), (5, 5)),
        (nn.Conv3d(4, 6, (1, 3, 3), dilation=2), (2, 8, 8)),
    ],
)
def test_a_convolution_equals_that_of_the_dequantized_weight(
    conv: nn.Conv1d | nn.Conv2d | nn.Conv3d, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    model = nn.Sequential(conv)
    replace_convolutions(model, ["0"])
    rows = quantize_rows(conv.weight.detach())
    layer = model[0]
    assert isinstance(layer, Int8Conv)
    layer.load_state_dict(rows._asdict() | ({} if conv.bias is None else {"bias": conv.bias}))
    model.to(dtype)
    assert layer.scales.dtype == torch.float16
    conv.weight.data = dequantize_rows(rows)
    x = random_inputs(2, 4, *shape, dtype=dtype)
    output, expected = model(x), conv.to(dtype)(x)
    assert output.dtype == dtype
    assert torch.equal(output, expected)


def test_only_plain_convolutions_can_be_replaced() -> None:
    with pytest.raises(ValueError, match="'0' is not a convolution"):
        replace_convolutions(nn.Sequential(nn.Linear(4, 4)), ["0"])
