"""A block quantized with several schemes at once: shapes, packing, exact folding, powers of two, 8-bit activations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from edgepress.models.base.family import Block, Component, Fold, ShiftChain
from edgepress.numerics.affine import QParams, QuantizedWeight, dequantize
from edgepress.numerics.awq_packing import AwqTensors, unpack_awq
from edgepress.quantize.algorithms.fp16_scales import balance_weights
from edgepress.quantize.plan import ComponentPlan, QuantBlock
from edgepress.quantize.solver import candidates as module
from edgepress.quantize.solver.block import BlockResult, quantize_block, quantize_block_variants
from edgepress.quantize.solver.candidates import VARIANTS
from edgepress.quantize.solver.layer import LayerInput, LayerResult, quantize_layer
from edgepress.recipes.schema import METHOD_STEPS, PRIMARY, QuantizationSettings, Scheme, Step
from edgepress.storage.checkpoint import Checkpoint

pytestmark = pytest.mark.slow

WIDTH, HEADS, KV_HEADS = 128, 4, 2
FOLDS = (
    Fold("norm", ("q", "v"), "norm"),
    Fold("v", ("o",), "rows", ("heads", "kv")),
    Fold("norm2", ("gate", "up"), "norm"),
    Fold("up", ("down",), "rows"),
)
CHAINS = (ShiftChain(("q",)), ShiftChain(("v", "o")), ShiftChain(("up", "down"), cancelled_by_norm=False))
SHAPES = {"q": (128, 128), "v": (64, 128), "o": (128, 128), "gate": (256, 128), "up": (256, 128), "down": (128, 256)}
EXTRA_SCHEMES = {
    "trt": Scheme(group_size=64, symmetric=True),
    "rknn": Scheme(group_size="channel", symmetric=True, narrow_range=True),
    "int8": Scheme(bits=8, group_size=128),
}
SCHEMES = {PRIMARY: Scheme(group_size=32)} | EXTRA_SCHEMES
ALL_STEPS: tuple[Step, ...] = ("scale", "clip", "range_search", "gptq", "scale_refit")


@dataclass
class FakeCalibration:
    """A calibration from tokens (n, in) of each input.

    Attributes:
        requested: The inputs whose Hessian was asked for.
        validation: Tokens of each input that are not in its Hessian, or None.
    """

    inputs: dict[str, Tensor]
    abs_max_by_module: dict[str, float] = field(default_factory=dict)
    requested: list[str] = field(default_factory=list)
    validation: dict[str, Tensor] | None = None

    def mean_abs(self, name: str) -> Tensor:
        return self.inputs[name].abs().mean(0)

    def abs_max(self, name: str) -> Tensor:
        return self.inputs[name].abs().amax(0)

    def tokens(self, block: QuantBlock, name: str) -> Tensor:
        assert block.component == "model"
        return self.inputs[name][::4]

    def validation_tokens(self, block: QuantBlock, name: str, centered: bool = False) -> Tensor | None:
        if self.validation is None:
            return None
        return self.validation[name] - self.mean(block, name) if centered else self.validation[name]

    def mean(self, block: QuantBlock, name: str) -> Tensor:
        assert block.component == "model"
        return self.inputs[name].mean(0)

    def hessian(self, block: QuantBlock, name: str, centered: bool = False) -> Tensor:
        self.requested.append(name)
        x = self.inputs[name] - self.mean(block, name) if centered else self.inputs[name]
        return x.T @ x / len(x)


@dataclass
class Setup:
    """A block and what it read.

    Attributes:
        component: The component with the block.
        weights: Its weights by name.
        calibration: The inputs of its linears.
        exponents: Of the powers of two by which its operations were rescaled.
    """

    component: ComponentPlan
    weights: dict[str, Tensor]
    calibration: FakeCalibration
    exponents: dict[str, int] = field(default_factory=dict)

    def solve(self, **options: object) -> dict[str, BlockResult]:
        """Quantizes the block. Tests share what is equal: they must not change it."""
        settings = make_settings(options).model_dump_json()
        key = repr((self.weights["q.weight"].dtype, self.exponents, self.calibration.abs_max_by_module, settings))
        if key not in SOLVED:
            SOLVED[key] = self.solve_again(**options)
        return SOLVED[key]

    def solve_again(self, **options: object) -> dict[str, BlockResult]:
        settings = make_settings(options)
        return quantize_block(self.component, self.component.blocks[0], self.calibration, settings, torch.float32)


def make_settings(options: dict[str, object]) -> QuantizationSettings:
    return QuantizationSettings.model_validate(
        {"scheme": SCHEMES[PRIMARY], "extra_schemes": EXTRA_SCHEMES, "method": "best"} | options
    )


SOLVED: dict[str, dict[str, BlockResult]] = {}


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def setup(request: pytest.FixtureRequest, tmp_path: Path) -> Setup:
    """A block of two norms and six linears, one of them with a bias, and the tokens that it read."""
    generator = torch.Generator().manual_seed(1)
    weights = {f"{name}.weight": 0.02 * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    weights |= {f"{name}.weight": torch.rand(WIDTH, generator=generator) + 0.5 for name in ("norm", "norm2")}
    weights["v.bias"] = torch.randn(64, generator=generator)
    weights = {name: tensor.to(request.param) for name, tensor in weights.items()}
    save_file({f"layers.0.{name}": tensor for name, tensor in weights.items()}, tmp_path / "model.safetensors")
    config = {"heads": HEADS, "kv": KV_HEADS}
    (tmp_path / "config.json").write_text(json.dumps(config))
    spec = Block("layers.*", FOLDS, CHAINS)
    block = QuantBlock("model", "layers.0", spec)
    component = ComponentPlan(Component("model", "Model", (spec,)), Checkpoint(tmp_path), config, (block,), ())
    inputs = {}
    for name, width in (("q", 128), ("o", 128), ("gate", 128), ("down", 256)):
        x = torch.randn(600, width, generator=generator)
        x[:, ::17] *= 10
        inputs[f"model.layers.0.{name}"] = x
    return Setup(component, weights, FakeCalibration(inputs))


def unpack(result: BlockResult, linear: str) -> QuantizedWeight:
    """Unpacks by dtype: eight output channels in an int32, or one in a byte."""
    qweight, qzeros, scales = (result.tensors[f"layers.0.{linear}.{k}"] for k in ("qweight", "qzeros", "scales"))
    if qweight.dtype == torch.int32:
        return unpack_awq(AwqTensors(qweight, qzeros, scales))
    return QuantizedWeight(qweight.T.contiguous(), QParams(scales.T.float(), qzeros.T, 0, 255))


def pair_tensors(first: BlockResult, second: BlockResult) -> Iterator[tuple[Tensor, Tensor]]:
    assert first.tensors.keys() == second.tensors.keys()
    return ((tensor, second.tensors[name]) for name, tensor in first.tensors.items())


def test_every_scheme_has_the_tensors_of_its_layout(setup: Setup) -> None:
    results = setup.solve()
    assert list(results) == [PRIMARY, "trt", "rknn", "int8"]
    for name, scheme in SCHEMES.items():
        tensors = results[name].tensors
        for linear, (height, width) in SHAPES.items():
            codes_per_element = 8 if scheme.bits == 4 else 1
            groups = width // scheme.resolve_group_size(width)
            packed = {kind: tensors[f"layers.0.{linear}.{kind}"] for kind in ("qweight", "qzeros", "scales")}
            assert packed["qweight"].shape == (width, height // codes_per_element)
            assert packed["qzeros"].shape == (groups, height // codes_per_element)
            assert packed["scales"].shape == (groups, height)
            integer = torch.int32 if scheme.bits == 4 else torch.uint8
            assert [tensor.dtype for tensor in packed.values()] == [integer, integer, torch.float16]
            assert all(tensor.is_contiguous() for tensor in packed.values())
        assert {f"layers.0.{linear}.weight" for linear in SHAPES}.isdisjoint(tensors)
        dtypes = {tensors[f"layers.0.{parameter}"].dtype for parameter in ("norm.weight", "v.bias")}
        assert dtypes == {setup.weights["norm.weight"].dtype}


@pytest.mark.parametrize(("name", "limit"), [(PRIMARY, 0.2), ("trt", 0.3), ("rknn", 0.4), ("int8", 0.02)])
def test_unpacked_weights_are_near_the_original(setup: Setup, name: str, limit: float) -> None:
    result = setup.solve()[name]
    for linear in SHAPES:
        weight = setup.weights[f"{linear}.weight"].float()
        error = dequantize(unpack(result, linear)) - weight
        assert error.norm() / weight.norm() < limit
        assert error.abs().mean() / weight.abs().mean() < limit


@pytest.mark.parametrize("method", ["rtn", "awq", "best"])
def test_layer_stats_are_the_errors_on_real_tokens(setup: Setup, method: str) -> None:
    """Relative to the layer's own output; folded scales are undone by hand."""
    result = setup.solve(method=method)[PRIMARY]
    stats = {layer.layer: layer for layer in result.layers}
    assert list(stats) == [f"model.layers.0.{linear}" for linear in ("q", "v", "o", "gate", "up", "down")]
    for linear, norm in (("q", "norm"), ("gate", "norm2")):
        # Before the norm's weight, which takes AWQ's scale: there the original and the quantized block read the same.
        before, after = setup.weights[f"{norm}.weight"].double(), result.tensors[f"layers.0.{norm}.weight"].double()
        x = setup.calibration.inputs[f"model.layers.0.{linear}"].double() / before
        exact = setup.weights[f"{linear}.weight"].double() * before
        weight = dequantize(unpack(result, linear)).double() * after
        expected = (x @ (weight - exact).T).square().sum() / (x @ exact.T).square().sum()
        assert stats[f"model.layers.0.{linear}"].error == pytest.approx(float(expected), rel=1e-2)
    for name, layer in stats.items():
        assert layer.weights == setup.weights[f"{name.removeprefix('model.layers.0.')}.weight"].numel()
        assert layer.steps["rtn"] == layer.rtn_error
        assert list(layer.steps.values())[-1] == layer.error
        assert list(layer.steps) == ["rtn", *METHOD_STEPS[method]]


@pytest.mark.parametrize("steps", [ALL_STEPS, METHOD_STEPS["awq"]])
def test_folding_is_exact(setup: Setup, steps: tuple[Step, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Norm times linears, and linears times the rows before them, do not change: checked before rounding."""
    folded: dict[str, Tensor] = {}

    def record(name: str, weight: Tensor, layer_input: LayerInput, steps: tuple[Step, ...]) -> LayerResult:
        if steps:  # without steps, it is the weight before folding, for its RTN error
            folded[name] = weight.double()
        return quantize_layer(name, weight, layer_input, steps)

    monkeypatch.setattr(module, "quantize_layer", record)
    assert_folded(setup, setup.solve_again(steps=steps, extra_schemes={})[PRIMARY], folded, 1e-6)


def assert_folded(setup: Setup, result: BlockResult, folded: dict[str, Tensor], tolerance: float) -> None:
    """Checks the folded weights of linears together with the result's norms and biases."""
    weights = {name: tensor.double() for name, tensor in setup.weights.items()}
    tensors = {name: result.tensors[f"layers.0.{name}"].double() for name in ("norm.weight", "norm2.weight", "v.bias")}
    assert not torch.equal(tensors["norm.weight"], weights["norm.weight"])

    def assert_near(value: Tensor, expected: Tensor, limit: float = tolerance) -> None:
        assert (value - expected).norm() / expected.norm() < limit

    for linear, norm in (("q", "norm.weight"), ("gate", "norm2.weight")):
        assert_near(folded[linear] * tensors[norm], weights[f"{linear}.weight"] * weights[norm])
    # Grouped-query attention: heads 0, 1 of o read head 0 of v; heads 2, 3 read head 1.
    size = WIDTH // HEADS
    v_channels = torch.cat([torch.arange(size) + head * size for head in (0, 0, 1, 1)])
    for first, second, norm, channel in (
        ("v", "o", "norm.weight", v_channels),
        ("up", "down", "norm2.weight", torch.arange(256)),
    ):
        mix = torch.randn(SHAPES[second][0], len(channel), generator=torch.Generator().manual_seed(2)).double()
        before = (weights[f"{second}.weight"] * mix) @ (weights[f"{first}.weight"] * weights[norm])[channel]
        after = (folded[second] * mix) @ (folded[first] * tensors[norm])[channel]
        assert_near(after, before)
    is_bfloat16 = setup.weights["v.bias"].dtype == torch.bfloat16  # and so is the stored bias
    bias_limit = 4e-3 if is_bfloat16 else tolerance
    expected = weights["o.weight"] * weights["v.bias"][v_channels]
    assert_near(folded["o"] * tensors["v.bias"][v_channels], expected, bias_limit)


def test_without_the_scale_step_norms_and_biases_do_not_change(setup: Setup) -> None:
    result = setup.solve(method="best")[PRIMARY]
    for name in ("norm.weight", "norm2.weight", "v.bias"):
        assert torch.equal(result.tensors[f"layers.0.{name}"], setup.weights[name])


def test_schemes_do_not_depend_on_each_other(setup: Setup) -> None:
    """Solved without the others, with folding in between, a scheme gets the same tensors."""
    results = setup.solve(steps=ALL_STEPS)
    for name in ("trt", "int8"):
        alone = setup.solve(steps=ALL_STEPS, extra_schemes={name: EXTRA_SCHEMES[name]})
        assert all(torch.equal(*pair) for pair in pair_tensors(results[name], alone[name]))
        assert all(torch.equal(*pair) for pair in pair_tensors(results[PRIMARY], alone[PRIMARY]))


@pytest.mark.parametrize("setup", [torch.float32], indirect=True)
def test_each_hessian_is_read_once_for_all_schemes(setup: Setup) -> None:
    setup.solve_again()
    assert sorted(setup.calibration.requested) == [f"model.layers.0.{name}" for name in ("down", "gate", "o", "q")]


def test_powers_of_two_change_only_scales(setup: Setup) -> None:
    plain = setup.solve()
    setup.calibration.abs_max_by_module |= {
        "model.layers.0.q": 1e5,
        "model.layers.0.o": 3e5,
        "model.layers.0.up": 1e5,
        "model.layers.0.down:in": 2e5,
    }
    without = setup.solve(extra_schemes={})[PRIMARY]
    assert all(torch.equal(*pair) for pair in pair_tensors(without, plain[PRIMARY])), "fp16_safe is off"
    safe = setup.solve(fp16_safe=True)
    exponents = {"q": 1, "v": 0, "o": 3, "gate": 0, "up": 2, "down": -2}
    for name in SCHEMES:
        for linear, k in exponents.items():
            before, after = unpack(plain[name], linear), unpack(safe[name], linear)
            assert torch.equal(after.codes, before.codes)
            assert torch.equal(after.qparams.zero_points, before.qparams.zero_points)
            # fp16 halves exactly unless the result is subnormal, and to its 2^-25 if it is.
            scales = after.qparams.scales * 2.0**k
            torch.testing.assert_close(scales, before.qparams.scales, rtol=0, atol=2.0 ** (k - 25))


def test_a_bias_is_divided_with_its_rows(setup: Setup) -> None:
    setup.calibration.abs_max_by_module["model.layers.0.v"] = 2e5
    result = setup.solve(fp16_safe=True, extra_schemes={})[PRIMARY]
    assert torch.equal(result.tensors["layers.0.v.bias"], setup.weights["v.bias"] / 4)


def test_the_rtn_error_does_not_depend_on_the_method(setup: Setup) -> None:
    plain, awq = (setup.solve(method=method)[PRIMARY].layers for method in ("rtn", "awq"))
    assert [layer.rtn_error for layer in awq] == pytest.approx([layer.error for layer in plain], rel=1e-2)


# ---------------------------------------------------------------- activations in 8 bits


def make_w8a8(activations: str, **options: object) -> dict[str, object]:
    """Settings with a single extra scheme, which quantizes activations."""
    scheme = {"bits": 8, "group_size": "channel", "symmetric": True, "narrow_range": True}
    return {"extra_schemes": {"w8a8": scheme | {"activations": activations} | options}}


def solve_w8a8(setup: Setup, activations: str, fp16_safe: bool = False, **options: object) -> BlockResult:
    """Quantizes the block with activations in 8 bits, and GPTQ, which `best` takes for them too."""
    return setup.solve(method="gptq", fp16_safe=fp16_safe, **make_w8a8(activations, **options))["w8a8"]


def test_smoothing_a_block_is_exact(setup: Setup) -> None:
    """With a limit that no linear meets, so that all of them stay in floating point."""
    result = solve_w8a8(setup, "dynamic", max_output_error=1e-12)
    assert all(layer.stays_float for layer in result.layers)
    weights = {linear: result.tensors[f"layers.0.{linear}.weight"] for linear in SHAPES}
    dtype = setup.weights["q.weight"].dtype
    assert {tensor.dtype for tensor in weights.values()} == {dtype}
    folded = {linear: tensor.double() for linear, tensor in weights.items()}
    assert_folded(setup, result, folded, 1e-6 if dtype == torch.float32 else 4e-3)
    assert not [name for name in result.tensors if name.endswith(("qweight", "scales", "input_scale"))]


@pytest.mark.parametrize("activations", ["dynamic", "static"])
@pytest.mark.parametrize("method", ["rtn", "best"])
def test_layer_stats_are_the_errors_of_integer_products(setup: Setup, activations: str, method: str) -> None:
    """By NumPy's integers, from the stored tensors; the folded norm says what the input was divided by."""
    result = setup.solve(method=method, **make_w8a8(activations))["w8a8"]
    for linear, norm in (("q", "norm"), ("gate", "norm2")):
        stats = next(layer for layer in result.layers if layer.layer == f"model.layers.0.{linear}")
        tokens = setup.calibration.inputs[f"model.layers.0.{linear}"].double()
        before, after = setup.weights[f"{norm}.weight"].double(), result.tensors[f"layers.0.{norm}.weight"].double()
        x = (tokens * after / before).numpy()
        static_scale = np.abs(x).max() / 127
        if activations == "static":
            input_scale = float(result.tensors[f"layers.0.{linear}.input_scale"])
            assert input_scale == pytest.approx(static_scale, rel=1e-6)
        x = x[::4]
        x_scales = np.abs(x).max(1, keepdims=True) / 127 if activations == "dynamic" else static_scale
        codes = result.tensors[f"layers.0.{linear}.qweight"].numpy().astype(np.int32) - 128
        product = np.rint(x / x_scales).astype(np.int32) @ codes
        output = product * x_scales * result.tensors[f"layers.0.{linear}.scales"].double().numpy()
        exact = tokens[::4] @ setup.weights[f"{linear}.weight"].T.double()
        expected = np.square(output - exact.numpy()).sum() / exact.square().sum()
        assert stats.error == pytest.approx(float(expected), rel=1e-2)
        assert list(stats.steps) == ["rtn", "smooth", "solved"]
        assert stats.error == stats.steps["solved"] <= stats.steps["smooth"] * 1.01
        assert stats.steps["smooth"] < stats.steps["rtn"] == stats.rtn_error


def test_only_linears_above_the_limit_stay_float(setup: Setup) -> None:
    errors = [layer.error for layer in solve_w8a8(setup, "static", max_output_error=1.0).layers]
    limit = sorted(errors)[3]
    result = solve_w8a8(setup, "static", max_output_error=limit)
    assert [layer.error for layer in result.layers] == errors
    for layer in result.layers:
        linear = layer.layer.removeprefix("model.")
        assert layer.stays_float == (layer.error > limit)
        assert (f"{linear}.weight" in result.tensors) == layer.stays_float
        assert (f"{linear}.qweight" in result.tensors) != layer.stays_float
        assert (f"{linear}.input_scale" in result.tensors) != layer.stays_float
    assert sum(layer.stays_float for layer in result.layers) == 2


def test_best_takes_gptq_for_activations_in_8_bits(setup: Setup) -> None:
    best, gptq = setup.solve(**make_w8a8("static"))["w8a8"], solve_w8a8(setup, "static")
    assert all(torch.equal(*pair) for pair in pair_tensors(best, gptq))
    assert best.layers == gptq.layers


def test_a_w8a8_scheme_does_not_change_the_model(setup: Setup) -> None:
    alone, with_w8a8 = setup.solve(extra_schemes={})[PRIMARY], setup.solve(**make_w8a8("static"))[PRIMARY]
    assert all(torch.equal(*pair) for pair in pair_tensors(alone, with_w8a8))
    assert alone.layers == with_w8a8.layers


def test_powers_of_two_divide_float_weights_and_input_scales_too(setup: Setup) -> None:
    plain = solve_w8a8(setup, "static").tensors
    floats = solve_w8a8(setup, "static", max_output_error=1e-12).tensors
    # up is divided by 4, and down multiplies by 4 again.
    setup.calibration.abs_max_by_module |= {"model.layers.0.up": 1e5, "model.layers.0.down:in": 2e5}
    safe = solve_w8a8(setup, "static", fp16_safe=True).tensors
    assert torch.equal(safe["layers.0.down.input_scale"] * 4, plain["layers.0.down.input_scale"])
    for linear in ("q", "gate", "up"):
        assert torch.equal(safe[f"layers.0.{linear}.input_scale"], plain[f"layers.0.{linear}.input_scale"])
    safe = solve_w8a8(setup, "static", fp16_safe=True, max_output_error=1e-12).tensors
    for linear, factor in (("q", 1), ("up", 4), ("down", 0.25)):
        name = f"layers.0.{linear}.weight"
        assert torch.equal(safe[name] * factor, floats[name])


# ---------------------------------------------------------------- scales beyond float16


RESCALED = {  # the same function: a power of two moves between two operations
    "from up to down": {"up": -22, "down": 22},
    "from down to up": {"up": 22, "down": -22},
    "from values to outputs": {"v": -22, "o": 22},
    "from linears to their norm": {"norm2": 22, "gate": -22, "up": -22},
    "from a norm to its linears": {"norm": -24, "q": 24, "v": 24},
}
INPUTS = {"norm": ("q",), "v": ("o",), "norm2": ("gate",), "up": ("down",)}  # what reads an operation's output


def rescale(setup: Setup, exponents: dict[str, int]) -> Setup:
    """The same block with powers of two moved, and what its operations would have read."""
    weights = {name: tensor * 2.0 ** exponents.get(name.partition(".")[0], 0) for name, tensor in setup.weights.items()}
    save_file(
        {f"layers.0.{name}": tensor for name, tensor in weights.items()},
        setup.component.checkpoint.folder / "model.safetensors",
    )
    inputs = dict(setup.calibration.inputs)
    for source, readers in INPUTS.items():
        for reader in readers:
            inputs[f"model.layers.0.{reader}"] = inputs[f"model.layers.0.{reader}"] * 2.0 ** exponents.get(source, 0)
    return Setup(setup.component, weights, FakeCalibration(inputs), exponents)


@pytest.mark.parametrize("name", RESCALED)
@pytest.mark.parametrize("method", ["rtn", "best"])
def test_a_power_of_two_between_operations_changes_no_quantized_weight(setup: Setup, name: str, method: str) -> None:
    """All errors are those of the block as it was, though float16 cannot hold the scales of the rescaled one."""
    options = {"scheme": SCHEMES[PRIMARY], "extra_schemes": {}, "method": method}
    expected = setup.solve(**options)[PRIMARY]
    result = rescale(setup, RESCALED[name]).solve(**options)[PRIMARY]
    assert not any(layer.stays_float for layer in result.layers)
    assert result.tensors.keys() == expected.tensors.keys()
    for layer, original in zip(result.layers, expected.layers, strict=True):
        assert layer.error == pytest.approx(original.error, rel=0.05), layer.layer
        assert layer.rtn_error == pytest.approx(original.rtn_error, rel=0.05), layer.layer


def test_a_linear_whose_scale_no_operation_can_take_stays_in_floats(setup: Setup) -> None:
    tiny = rescale(setup, {"q": -30})
    result = tiny.solve(extra_schemes={})[PRIMARY]
    assert [layer.layer for layer in result.layers if layer.stays_float] == ["model.layers.0.q"]
    assert "layers.0.q.qweight" not in result.tensors
    stored = result.tensors["layers.0.q.weight"]
    assert stored.dtype == tiny.weights["q.weight"].dtype
    (layer,) = (layer for layer in result.layers if layer.stays_float)
    assert layer.error == 0
    assert layer.rtn_error > 0.5  # of zeros


def test_ordinary_weights_are_not_moved(setup: Setup) -> None:
    block = setup.component.blocks[0]
    dtypes = {name: tensor.dtype for name, tensor in setup.weights.items()}
    weights = dict(setup.weights)
    assert balance_weights(weights, block, setup.component.config, SCHEMES[PRIMARY], dtypes) == {}
    assert all(weights[name] is tensor for name, tensor in setup.weights.items())


def test_best_corrects_biases_for_the_mean_error_and_says_what_layers_took(setup: Setup) -> None:
    """The mean of a linear's outputs stays, and errors are those of real tokens that nothing was solved on."""
    generator = torch.Generator().manual_seed(5)
    calibration = setup.calibration
    calibration.inputs = {
        name: x + 2 * torch.randn(x.shape[1], generator=generator) for name, x in calibration.inputs.items()
    }
    halves = {name: (x[:400], x[400:]) for name, x in calibration.inputs.items()}
    calibration.inputs = {name: solved for name, (solved, _) in halves.items()}
    calibration.validation = {name: rest for name, (_, rest) in halves.items()}
    setup.weights["o.bias"] = torch.randn(128, generator=generator).to(setup.weights["v.bias"].dtype)
    tensors = {f"layers.0.{name}": tensor for name, tensor in setup.weights.items()}
    save_file(tensors, setup.component.checkpoint.folder / "model.safetensors")
    component = replace(setup.component, checkpoint=Checkpoint(setup.component.checkpoint.folder))
    settings = QuantizationSettings(scheme=SCHEMES[PRIMARY])
    variants = quantize_block_variants(component, component.blocks[0], calibration, settings, torch.float32)
    assert list(variants) == list(VARIANTS)
    result = variants["gptq"][PRIMARY]  # folds nothing
    x, rest = (part.double() for part in halves["model.layers.0.o"])
    weight, quantized = setup.weights["o.weight"].double(), dequantize(unpack(result, "o")).double()
    bias, corrected = setup.weights["o.bias"].double(), result.tensors["layers.0.o.bias"].double()
    mean = x.mean(0)
    limit = 1e-4 if setup.weights["o.bias"].dtype == torch.float32 else 2e-2
    torch.testing.assert_close(quantized @ mean + corrected, weight @ mean + bias, rtol=limit, atol=limit)
    stats = {layer.layer: layer for layer in result.layers}["model.layers.0.o"]
    assert stats.chosen == "gptq, damping 0.05"
    error = ((rest - mean) @ (quantized - weight).T).square().sum() / ((rest - mean) @ weight.T).square().sum()
    assert stats.validation_error == pytest.approx(float(error), rel=1e-2)
    refined = {layer.layer: layer for layer in variants["validated"][PRIMARY].layers}
    assert sum(layer.validation_error or 0 for layer in refined.values()) < sum(
        layer.validation_error or 0 for layer in result.layers
    )
