"""What is trained begins as it is stored, and is stored in the same places; codes move within their format."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgepress.numerics.affine import minmax_qparams, quantize
from edgepress.numerics.awq_packing import AwqTensors, pack_awq, unpack_awq
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


def load_moving(weight: Tensor | None = WEIGHT) -> TrainableModel:
    """The same two linears; the codes of the first are trained."""
    model, tensors = load(4), make_tensors(4)
    model.move_codes("0", AwqTensors(*(tensors[f"0.{kind}"] for kind in AwqTensors._fields)), weight)
    return model


@pytest.mark.parametrize("weight", [WEIGHT, None])
def test_codes_that_may_move_begin_as_they_are_stored(weight: Tensor | None) -> None:
    model, tensors = load_moving(weight), make_tensors(4)
    model.update_weights()
    assert torch.equal(model.module.get_parameter("0.weight"), dequantize(tensors))
    stored = model.to_stored(model.round_parameters())
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in stored.items())
    assert all(tensor.dtype == tensors[name].dtype for name, tensor in stored.items())


def test_positions_lie_towards_the_weights_by_less_than_half_a_code() -> None:
    model = load_moving()
    codes, scales = model.codes["0"], model.parameters["0.scales"][..., None]
    offsets, exact = model.parameters["0.qweight"] - codes, WEIGHT.view(codes.shape) / scales - codes
    assert (offsets * exact >= 0).all()
    assert (offsets.abs() <= 0.4 + 1e-6).all()
    assert torch.allclose(offsets, 0.8 * exact.clamp(-0.5, 0.5), atol=1e-5)
    assert torch.equal(load_moving(None).parameters["0.qweight"], codes.float())


def test_moved_codes_are_stored_as_readers_unpack_them() -> None:
    model, tensors = load_moving(), make_tensors(4)
    before = unpack_awq(AwqTensors(*(tensors[f"0.{kind}"] for kind in AwqTensors._fields))).codes
    model.parameters["0.qweight"] += 1
    model.update_weights()
    stored = model.to_stored(model.round_parameters())
    after = unpack_awq(AwqTensors(stored["0.qweight"], tensors["0.qzeros"], tensors["0.scales"]))
    assert torch.equal(after.codes, (before + 1).clamp(max=15))
    expected = (after.codes.float() - after.qparams.zero_points.repeat_interleave(32, 1).float()) * (
        tensors["0.scales"].T.float().repeat_interleave(32, 1)
    )
    assert torch.equal(model.module.get_parameter("0.weight"), expected)


def test_codes_stay_among_those_that_their_linear_has() -> None:
    """A narrow range lacks the lowest code."""
    spec = QuantSpec(4, 32, symmetric=True, narrow_range=True)
    packed = pack_awq(quantize(WEIGHT, minmax_qparams(WEIGHT, spec)))
    tensors = {f"0.{kind}": tensor for kind, tensor in packed._asdict().items()} | {"0.bias": torch.ones(16)}
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(WIDTH, 16))
    model = TrainableModel.load(module, tensors)
    model.move_codes("0", packed, WEIGHT)
    for change, code in ((-100, 1), (100, 15)):
        model.parameters["0.qweight"] += change
        model.update_weights()
        stored = model.to_stored(model.round_parameters())
        assert (unpack_awq(packed._replace(qweight=stored["0.qweight"])).codes == code).all()


def test_gradients_of_positions_and_scales_are_those_of_their_product() -> None:
    """As if codes were not rounded."""
    model = load_moving()
    replica = replicate(model.module)
    x = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(1))
    replica(x).square().sum().backward()
    gradients = model.get_gradients(replica)
    codes = model.codes["0"].float().requires_grad_()
    scales = model.parameters["0.scales"].clone().requires_grad_()
    hidden = x @ (codes * scales[..., None]).flatten(1).T + 1
    (hidden @ torch.ones(8, 16).T).square().sum().backward()
    assert codes.grad is not None
    assert scales.grad is not None
    assert torch.allclose(gradients["0.qweight"], codes.grad, rtol=1e-4)
    assert torch.allclose(gradients["0.scales"], scales.grad, rtol=1e-3)
    assert gradients.keys() == model.parameters.keys()
