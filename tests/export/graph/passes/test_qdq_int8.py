"""Products with 8-bit codes: exact weights, activations rounded as NumPy's integers say, and codes that are shared."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from helpers.onnx_graphs import session
from helpers.small_graphs import linear_model
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from edgepress.export.graph.external_weights import Int8Layout
from edgepress.export.graph.int8_operands import Int8Tensors, dequantize_int8, to_int8_operand
from edgepress.export.graph.passes.qdq_int8 import quantize_activations, replace_with_int8
from edgepress.export.graph.passes.simplify import remove_dead_code

HEIGHT, WIDTH = 24, 96
SCALE = 0.02  # static


def codes(seed: int = 0) -> Int8Tensors:
    """A linear that takes every code but the lowest, which symmetric grids leave out."""
    generator = torch.Generator().manual_seed(seed)
    qweight = torch.randint(1, 256, (WIDTH, HEIGHT), generator=generator, dtype=torch.uint8)
    return Int8Tensors(qweight, (torch.rand(1, HEIGHT, generator=generator) * 0.01 + 1e-6).half())


def tensors(**linears: Int8Tensors) -> dict[str, Tensor]:
    return {
        f"{name}.{kind}": to_int8_operand(one, kind) for name, one in linears.items() for kind in ("qweight", "scales")
    }


def bytes_(scale: float | None) -> Int8Layout:
    return Int8Layout((HEIGHT, WIDTH), scale)


def two_readers(scale: float | None, signed: bool = False) -> ir.Model:
    """Two linears `a` and `b` of one input `a.x`."""
    model = linear_model({"a": (HEIGHT, WIDTH), "b": (HEIGHT, WIDTH)})
    (product,) = [node for node in model.graph if node.outputs[0].name == "b.y"]
    product.replace_input_with(0, model.graph.inputs[0])
    model.graph.inputs.pop()
    linears = {"a": bytes_(scale), "b": bytes_(scale)}
    return remove_dead_code(quantize_activations(replace_with_int8(model, linears), linears, signed))


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph if node.op_type not in ("Constant", "Transpose"))


def tokens() -> NDArray[np.float32]:
    """Tokens of all sizes, and one of zeros."""
    x = (
        np.random.default_rng(0).standard_normal((40, WIDTH), np.float32)
        * np.logspace(-4, 2, 40, dtype=np.float32)[:, None]
    )
    x[7] = 0
    return x


def integers(x: NDArray[Any], step: NDArray[Any] | float, linear: Int8Tensors, lowest: int = -127) -> NDArray[Any]:
    """The product of codes in integers, in float64 after that."""
    left = np.clip(np.rint(np.divide(x, step, out=np.zeros_like(x), where=np.asarray(step) > 0)), lowest, 127)
    right = linear.qweight.numpy().astype(np.int64) - 128
    return (left.astype(np.int64) @ right) * step * linear.scales.double().numpy()


@pytest.mark.parametrize("runtime", ["onnxruntime", "reference"])
def test_without_rounding_a_product_is_with_the_weight_to_the_bit(runtime: str) -> None:
    """By the identity, run by ONNX's own evaluator; ONNX Runtime may multiply in another order."""
    model = remove_dead_code(replace_with_int8(linear_model({"a": (HEIGHT, WIDTH)}), {"a": bytes_(None)}))
    runs = session(model, tensors(a=codes()))
    proto = ir.to_proto(model)
    run = runs.run if runtime == "onnxruntime" else ReferenceEvaluator(proto).run
    (found,) = run(None, {"a.x": np.eye(WIDTH, dtype=np.float32)})
    expected = (codes().qweight.double() - 128) * codes().scales.double()
    np.testing.assert_allclose(found, expected.float().numpy(), rtol=0, atol=1e-6 if runtime == "onnxruntime" else 0)
    assert torch.equal(dequantize_int8(codes()).T, expected.float())


def test_on_a_scale_of_each_token_products_are_those_of_integers() -> None:
    x = tokens()
    found = session(two_readers(None), tensors(a=codes(), b=codes(1))).run(None, {"a.x": x})
    steps = np.abs(x.astype(np.float64)).max(1, keepdims=True) / 127
    for one, linear in zip(found, (codes(), codes(1)), strict=True):
        expected = integers(x.astype(np.float64), steps, linear)
        assert (np.abs(one - expected).max(1) <= 1e-5 * np.abs(expected).max(1) + 1e-30).all()
        assert not one[7].any()


@pytest.mark.parametrize("signed", [True, False])
def test_on_one_scale_products_are_those_of_integers_that_are_cut_off(signed: bool) -> None:
    x = tokens()
    assert np.abs(x).max() > 130 * SCALE
    found = session(two_readers(SCALE, signed), tensors(a=codes(), b=codes(1))).run(None, {"a.x": x})
    for one, linear in zip(found, (codes(), codes(1)), strict=True):
        expected = integers(x.astype(np.float64), SCALE, linear, lowest=-128)
        assert np.abs(one - expected).max() < 1e-5 * np.abs(expected).max()


def test_readers_of_one_input_share_its_codes() -> None:
    shared = {"Abs": 1, "ReduceMax": 1, "Max": 1, "Div": 1, "QuantizeLinear": 1}
    assert operators(two_readers(None)) == {**shared, "MatMulIntegerToFloat": 2, "Mul": 2}
    assert operators(two_readers(SCALE)) == {"QuantizeLinear": 1, "DequantizeLinear": 3, "MatMul": 2}
    assert "com.microsoft" not in two_readers(SCALE, signed=True).graph.opset_imports


def test_readers_on_different_scales_share_nothing() -> None:
    model = linear_model({"a": (HEIGHT, WIDTH), "b": (HEIGHT, WIDTH)})
    linears = {"a": bytes_(0.1), "b": bytes_(0.2)}
    assert (
        operators(quantize_activations(replace_with_int8(model, linears), linears, signed=False))["QuantizeLinear"] == 2
    )


def test_onnx_runtime_fuses_what_is_unsigned(tmp_path: Path) -> None:
    model = two_readers(SCALE)
    session(model, tensors(a=codes(), b=codes(1)))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert found == {"QuantizeLinear": 1, "MatMulIntegerToFloat": 2}


def test_linears_that_stay_in_floats_are_left_alone() -> None:
    model = linear_model({"a": (HEIGHT, WIDTH), "b": (HEIGHT, WIDTH)})
    linears = {"a": bytes_(None), "gone": bytes_(None)}
    found = operators(quantize_activations(replace_with_int8(model, linears), linears, signed=False))
    assert (found["MatMul"], found["MatMulIntegerToFloat"]) == (1, 1)
    assert {"a.qweight", "a.scales", "b.weight"} <= set(model.graph.initializers)
