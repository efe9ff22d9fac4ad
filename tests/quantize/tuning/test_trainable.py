"""What is trained begins as it is stored, and is stored in the same places."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgepress.numerics.affine import minmax_qparams, quantize
from edgepress.numerics.awq_packing import pack_awq
from edgepress.numerics.int4_matmul import dequantize_awq
from edgepress.numerics.quant_spec import QuantSpec
from edgepress.quantize.tuning.trainable import TrainableModel, replicate

WIDTH = 64
WEIGHT = torch.randn(16, WIDTH, generator=torch.Generator().manual_seed(0))


def make_tensors(bits: int) -> dict[str, Tensor]:
    """The stored tensors of two linears, of which the first is quantized."""
    spec = QuantSpec(4, 32) if bits == 4 else QuantSpec(8, WIDTH, symmetric=True, narrow_range=True)
    quantized = quantize(WEIGHT, minmax_qparams(WEIGHT, spec))
    if bits == 4:
        packed = pack_awq(quantized)._asdict()
    else:
        codes, (scales, zero_points, *_) = quantized
        packed = {"qweight": codes.T, "qzeros": zero_points.T, "scales": scales.T.half()}
    floats = {"0.bias": torch.ones(16, dtype=torch.bfloat16), "1.weight": torch.ones(8, 16, dtype=torch.bfloat16)}
    return {f"0.{kind}": tensor for kind, tensor in packed.items()} | floats


def load(bits: int) -> TrainableModel:
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(WIDTH, 16), nn.Linear(16, 8, bias=False))
    return TrainableModel.load(module, make_tensors(bits))


def dequantize(tensors: dict[str, Tensor]) -> Tensor:
    """The weight of the first linear, by the reader of artifacts or written out."""
    if tensors["0.qweight"].dtype == torch.int32:
        packed = pack_awq(quantize(WEIGHT, minmax_qparams(WEIGHT, QuantSpec(4, 32))))
        return dequantize_awq(packed._replace(scales=tensors["0.scales"]))
    return (tensors["0.qweight"].T.float() - 128) * tensors["0.scales"].T.float()


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_are_those_of_the_file(bits: int) -> None:
    model = load(bits)
    assert torch.equal(model.module.get_parameter("0.weight"), dequantize(make_tensors(bits)))
    assert torch.equal(model.module.get_parameter("0.bias"), torch.ones(16))
    assert all(parameter.dtype == torch.float32 for parameter in model.module.parameters())


@pytest.mark.parametrize("bits", [4, 8])
def test_scales_and_floats_are_trained_and_codes_are_not(bits: int) -> None:
    assert set(load(bits).parameters) == {"0.scales", "0.bias", "1.weight"}


@pytest.mark.parametrize("bits", [4, 8])
def test_what_is_not_changed_is_stored_as_it_was(bits: int) -> None:
    model, tensors = load(bits), make_tensors(bits)
    stored = model.to_stored(model.round_parameters())
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in stored.items())
    assert all(tensor.dtype == tensors[name].dtype for name, tensor in stored.items())


@pytest.mark.parametrize("bits", [4, 8])
def test_changed_scales_reach_the_weights(bits: int) -> None:
    model, tensors = load(bits), make_tensors(bits)
    model.set_parameters({"0.scales": model.parameters["0.scales"] * 2, "1.weight": torch.full((8, 16), 3.0)})
    stored = model.to_stored(model.round_parameters())
    assert torch.equal(stored["0.scales"], tensors["0.scales"] * 2)
    assert torch.equal(model.module.get_parameter("0.weight"), dequantize(tensors | stored))
    assert torch.equal(model.module.get_parameter("1.weight"), torch.full((8, 16), 3.0))


def test_scales_stay_within_float16_and_above_zero() -> None:
    model = load(4)
    model.parameters["0.scales"][0] = -1.0
    model.parameters["0.scales"][1] = 1e9
    scales = model.to_stored(model.round_parameters())["0.scales"]
    assert scales.isfinite().all()
    assert (scales > 0).all()


def test_a_replica_shares_values_but_not_gradients() -> None:
    model = load(4)
    replica = replicate(model.module)
    replica(torch.ones(1, WIDTH)).sum().backward()
    assert all(parameter.grad is None for parameter in model.module.parameters())
    model.set_parameters({"0.scales": model.parameters["0.scales"] * 2})
    assert torch.equal(replica.get_parameter("0.weight"), model.module.get_parameter("0.weight"))


def test_gradients_are_taken_once() -> None:
    model = load(4)
    replica = replicate(model.module)
    replica(torch.ones(1, WIDTH)).sum().backward()
    assert model.get_gradients(replica)["1.weight"].any()
    assert not model.get_gradients(replica)["1.weight"].any()


def test_codes_of_eight_bits_fit() -> None:
    """The lowest code of a narrow range is 1, 127 below the zero point."""
    codes = torch.tensor([[1, 255]], dtype=torch.uint8)
    zero_points = torch.tensor([[128]], dtype=torch.uint8)
    tensors = {"0.qweight": codes.T, "0.qzeros": zero_points, "0.scales": torch.tensor([[0.5]]).half()}
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(2, 1, bias=False))
    weight = TrainableModel.load(module, tensors).module.get_parameter("0.weight")
    assert weight.tolist() == [[-63.5, 63.5]]
