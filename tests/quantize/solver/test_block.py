"""One block solved for several grids at once: shapes, packing, exact folding, powers of two, rounded activations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from edgepress.models.base.family import Block, Component, Fold, ShiftChain
from edgepress.numerics.affine import QParams, QuantizedWeight, dequantize
from edgepress.numerics.awq_packing import AwqTensors, unpack_awq
from edgepress.quantize.plan import ComponentPlan, QuantBlock
from edgepress.quantize.solver import block as module
from edgepress.quantize.solver.block import PRIMARY, quantize_block
from edgepress.quantize.solver.layer import LayerInput, LayerResult
from edgepress.recipes.schema import METHOD_STEPS, QuantizationSettings, Scheme, Step
from edgepress.storage.checkpoint import Checkpoint

WIDTH, HEADS, SHARED = 128, 4, 2
FOLDS = (
    Fold("norm", ("q", "v"), "norm"),
    Fold("v", ("o",), "rows", ("heads", "kv")),
    Fold("norm2", ("gate", "up"), "norm"),
    Fold("up", ("down",), "rows"),
)
CHAINS = (ShiftChain(("q",)), ShiftChain(("v", "o")), ShiftChain(("up", "down"), cancelled_by_norm=False))
SHAPES = {"q": (128, 128), "v": (64, 128), "o": (128, 128), "gate": (256, 128), "up": (256, 128), "down": (128, 256)}
ALSO = {
    "trt": Scheme(group_size=64, zero_point=False),
    "rknn": Scheme(group_size="channel", zero_point=False, narrow_range=True),
    "bytes": Scheme(bits=8, group_size=128),
}
SCHEMES = {PRIMARY: Scheme(group_size=32)} | ALSO
ALL: tuple[Step, ...] = ("scale", "clip", "range", "gptq", "refit")


@dataclass
class Found:
    """A calibration that was made by hand."""

    seen: dict[str, Tensor]
    peaks: dict[str, float] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def magnitude(self, name: str) -> Tensor:
        return self.seen[name].abs().mean(0)

    def largest(self, name: str) -> Tensor:
        return self.seen[name].abs().amax(0)

    def tokens(self, unit: QuantBlock, name: str) -> Tensor:
        assert unit.component == "model"
        return self.seen[name][::4]

    def gram(self, unit: QuantBlock, name: str) -> Tensor:
        assert unit.component == "model"
        self.asked.append(name)
        return self.seen[name].T @ self.seen[name] / len(self.seen[name])


@dataclass
class Setting:
    part: ComponentPlan
    weights: dict[str, Tensor]
    found: Found

    def solve(self, **options: object) -> dict[str, module.BlockResult]:
        quantization = QuantizationSettings.model_validate({"scheme": SCHEMES[PRIMARY], "also": ALSO} | options)
        return quantize_block(self.part, self.part.blocks[0], self.found, quantization, torch.float32)


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def setting(request: pytest.FixtureRequest, tmp_path: Path) -> Setting:
    """A block of two norms and six linears, one of them with a bias, and the tokens that it read."""
    generator = torch.Generator().manual_seed(1)
    weights = {f"{name}.weight": 0.02 * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    weights |= {f"{name}.weight": torch.rand(WIDTH, generator=generator) + 0.5 for name in ("norm", "norm2")}
    weights["v.bias"] = torch.randn(64, generator=generator)
    weights = {name: tensor.to(request.param) for name, tensor in weights.items()}
    save_file({f"layers.0.{name}": tensor for name, tensor in weights.items()}, tmp_path / "model.safetensors")
    config = {"heads": HEADS, "kv": SHARED}
    (tmp_path / "config.json").write_text(json.dumps(config))
    block = Block("layers.*", FOLDS, CHAINS)
    unit = QuantBlock("model", "layers.0", block)
    part = ComponentPlan(Component("model", "Model", (block,)), Checkpoint(tmp_path), config, (unit,), ())
    tokens = {}
    for name, width in (("q", 128), ("o", 128), ("gate", 128), ("down", 256)):
        x = torch.randn(600, width, generator=generator)
        x[:, ::17] *= 10
        tokens[f"model.layers.0.{name}"] = x
    return Setting(part, weights, Found(tokens))


def codes_of(solution: module.BlockResult, linear: str) -> QuantizedWeight:
    """Unpacks by shape: eights of output channels in an int32, or a byte each."""
    qweight, qzeros, scales = (solution.tensors[f"layers.0.{linear}.{k}"] for k in ("qweight", "qzeros", "scales"))
    if qweight.dtype == torch.int32:
        return unpack_awq(AwqTensors(qweight, qzeros, scales))
    return QuantizedWeight(qweight.T.contiguous(), QParams(scales.T.float(), qzeros.T, 0, 255))


def test_every_solution_has_the_tensors_that_its_layout_asks_for(setting: Setting) -> None:
    solutions = setting.solve()
    assert list(solutions) == [PRIMARY, "trt", "rknn", "bytes"]
    for name, scheme in SCHEMES.items():
        solution = solutions[name]
        for linear, (height, width) in SHAPES.items():
            packed = 8 if scheme.bits == 4 else 1
            groups = width // scheme.resolve_group_size(width)
            found = {kind: solution.tensors[f"layers.0.{linear}.{kind}"] for kind in ("qweight", "qzeros", "scales")}
            assert found["qweight"].shape == (width, height // packed)
            assert found["qzeros"].shape == (groups, height // packed)
            assert found["scales"].shape == (groups, height)
            integer = torch.int32 if scheme.bits == 4 else torch.uint8
            assert [tensor.dtype for tensor in found.values()] == [integer, integer, torch.float16]
            assert all(tensor.is_contiguous() for tensor in found.values())
        assert {f"layers.0.{linear}.weight" for linear in SHAPES}.isdisjoint(solution.tensors)
        stored = setting.weights["norm.weight"].dtype
        assert {solution.tensors[f"layers.0.{other}"].dtype for other in ("norm.weight", "v.bias")} == {stored}


@pytest.mark.parametrize(("name", "most"), [(PRIMARY, 0.1), ("trt", 0.15), ("rknn", 0.2), ("bytes", 0.01)])
def test_unpacked_weights_are_near_the_original(setting: Setting, name: str, most: float) -> None:
    solution = setting.solve()[name]
    for linear in SHAPES:
        weight = setting.weights[f"{linear}.weight"].float()
        found = dequantize(codes_of(solution, linear))
        assert (found - weight).norm() / weight.norm() < 2 * most
        assert (found - weight).abs().mean() / weight.abs().mean() < 2 * most


@pytest.mark.parametrize("method", ["rtn", "awq", "best"])
def test_reports_are_the_errors_on_real_tokens(setting: Setting, method: str) -> None:
    """Relative to the layer's own output; folded scales are undone by hand."""
    solution = setting.solve(method=method)[PRIMARY]
    reports = {report.layer: report for report in solution.layers}
    assert list(reports) == [f"model.layers.0.{linear}" for linear in ("q", "v", "o", "gate", "up", "down")]
    for source, norm in (("q", "norm"), ("gate", "norm2")):
        # In front of the norm's weight, which takes AWQ's scale: there the original and the pressed read the same.
        before, after = (
            setting.weights[f"{norm}.weight"].double(),
            solution.tensors[f"layers.0.{norm}.weight"].double(),
        )
        x = setting.found.seen[f"model.layers.0.{source}"].double() / before
        exact = setting.weights[f"{source}.weight"].double() * before
        found = dequantize(codes_of(solution, source)).double() * after
        expected = (x @ (found - exact).T).square().sum() / (x @ exact.T).square().sum()
        assert reports[f"model.layers.0.{source}"].error == pytest.approx(float(expected), rel=1e-2)
    for linear, report in ((name.removeprefix("model.layers.0."), report) for name, report in reports.items()):
        assert report.weights == setting.weights[f"{linear}.weight"].numel()
        assert report.steps["rtn"] == report.rtn_error
        assert list(report.steps.values())[-1] == report.error
        assert list(report.steps) == ["rtn", *METHOD_STEPS[method]]


@pytest.mark.parametrize("steps", [ALL, METHOD_STEPS["awq"]])
def test_folding_is_exact(setting: Setting, steps: tuple[Step, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Norm times readers, and readers times the rows before them, are what they were: seen before rounding."""
    seen: dict[str, Tensor] = {}
    climb = module.quantize_layer

    def spy(linear: str, weight: Tensor, source: LayerInput, rungs: tuple[Step, ...]) -> LayerResult:
        if rungs:  # without, it is the weight before folding whose rounding is reported
            seen[linear] = weight.double()
        return climb(linear, weight, source, rungs)

    monkeypatch.setattr(module, "climb", spy)
    assert_folded(setting, setting.solve(steps=steps, also={})[PRIMARY], seen, 1e-6)


def assert_folded(setting: Setting, solution: module.BlockResult, seen: dict[str, Tensor], tolerance: float) -> None:
    """`seen` are the weights that the solution's norms and biases go with."""
    weights = {name: tensor.double() for name, tensor in setting.weights.items()}
    moved = {name: solution.tensors[f"layers.0.{name}"].double() for name in ("norm.weight", "norm2.weight", "v.bias")}
    assert not torch.equal(moved["norm.weight"], weights["norm.weight"])

    def same(found: Tensor, expected: Tensor) -> None:
        assert (found - expected).norm() / expected.norm() < tolerance

    for linear, norm in (("q", "norm.weight"), ("gate", "norm2.weight")):
        same(seen[linear] * moved[norm], weights[f"{linear}.weight"] * weights[norm])
    # Grouped-query attention: heads 0, 1 of o read head 0 of v; heads 2, 3 read head 1.
    size = WIDTH // HEADS
    read = torch.cat([torch.arange(size) + head * size for head in (0, 0, 1, 1)])
    for first, second, norm, channel in (
        ("v", "o", "norm.weight", read),
        ("up", "down", "norm2.weight", torch.arange(256)),
    ):
        mixed = torch.randn(SHAPES[second][0], len(channel), generator=torch.Generator().manual_seed(2)).double()
        before = (weights[f"{second}.weight"] * mixed) @ (weights[f"{first}.weight"] * weights[norm])[channel]
        after = (seen[second] * mixed) @ (seen[first] * moved[norm])[channel]
        same(after, before)
    read_bias = weights["o.weight"] * weights["v.bias"][read]
    rough = setting.weights["v.bias"].dtype == torch.bfloat16  # and so is the bias, which is stored
    assert (seen["o"] * moved["v.bias"][read] - read_bias).norm() / read_bias.norm() < (4e-3 if rough else tolerance)


def test_without_the_scale_step_norms_and_biases_stay_as_they_are(setting: Setting) -> None:
    solution = setting.solve(method="best")[PRIMARY]
    for name in ("norm.weight", "norm2.weight", "v.bias"):
        assert torch.equal(solution.tensors[f"layers.0.{name}"], setting.weights[name])


def test_solutions_do_not_depend_on_each_other(setting: Setting) -> None:
    """Asked for alone, with folding in between, a grid gets the same tensors."""
    together = setting.solve(steps=ALL)
    for name in ("trt", "bytes"):
        alone = setting.solve(steps=ALL, also={name: ALSO[name]})
        for kind, tensor in together[name].tensors.items():
            assert torch.equal(tensor, alone[name].tensors[kind])
    assert all(torch.equal(tensor, again) for tensor, again in _paired(together[PRIMARY], alone[PRIMARY]))


def _paired(one: module.BlockResult, other: module.BlockResult) -> Iterator[tuple[Tensor, Tensor]]:
    assert one.tensors.keys() == other.tensors.keys()
    return ((tensor, other.tensors[name]) for name, tensor in one.tensors.items())


def test_statistics_are_asked_for_once_an_input_for_all_solutions(setting: Setting) -> None:
    setting.solve()
    assert sorted(setting.found.asked) == [f"model.layers.0.{name}" for name in ("down", "gate", "o", "q")]


def test_powers_of_two_go_into_scales_alone(setting: Setting) -> None:
    plain = setting.solve()
    setting.found.peaks |= {
        "model.layers.0.q": 1e5,
        "model.layers.0.o": 3e5,
        "model.layers.0.up": 1e5,
        "model.layers.0.down:in": 2e5,
    }
    assert all(torch.equal(*pair) for pair in _paired(setting.solve()[PRIMARY], plain[PRIMARY])), (
        "nothing was asked for"
    )
    safe = setting.solve(fp16_safe=True)
    powers = {"q": 1, "v": 0, "o": 3, "gate": 0, "up": 2, "down": -2}
    for name in SCHEMES:
        for linear, k in powers.items():
            before, after = codes_of(plain[name], linear), codes_of(safe[name], linear)
            assert torch.equal(after.codes, before.codes)
            assert torch.equal(after.qparams.zero_points, before.qparams.zero_points)
            # fp16 halves exactly where the result is not subnormal, and to its 2^-25 where it is.
            torch.testing.assert_close(
                after.qparams.scales * 2.0**k, before.qparams.scales, rtol=0, atol=2.0 ** (k - 25)
            )


def test_a_bias_is_divided_with_its_rows(setting: Setting) -> None:
    setting.found.peaks["model.layers.0.v"] = 2e5
    solution = setting.solve(fp16_safe=True)[PRIMARY]
    assert torch.equal(solution.tensors["layers.0.v.bias"], setting.weights["v.bias"] / 4)


def test_rounding_alone_is_reported_alike_for_every_method(setting: Setting) -> None:
    plain, awq = (setting.solve(method=method)[PRIMARY].layers for method in ("rtn", "awq"))
    assert [report.rtn_error for report in awq] == pytest.approx([report.error for report in plain], rel=1e-2)


# ---------------------------------------------------------------- activations in 8 bits


def rounding(how: str, **options: object) -> dict[str, object]:
    """A recipe's further grids, of which the only one rounds activations."""
    bytes_ = {"bits": 8, "group_size": "channel", "zero_point": False, "narrow": True}
    return {"also": {"w8a8": bytes_ | {"activations": how} | options}}


def test_before_rounding_a_smoothed_block_is_what_it_was(setting: Setting) -> None:
    """Every linear is kept, so that the floats show."""
    solution = setting.solve(**rounding("dynamic", keep_above=1e-12))["w8a8"]
    assert all(report.stays_float for report in solution.layers)
    stored = {linear: solution.tensors[f"layers.0.{linear}.weight"] for linear in SHAPES}
    dtype = setting.weights["q.weight"].dtype
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    seen = {linear: tensor.double() for linear, tensor in stored.items()}
    assert_folded(setting, solution, seen, 1e-6 if dtype == torch.float32 else 4e-3)
    assert not [name for name in solution.tensors if name.endswith(("qweight", "scales", "input_scale"))]


@pytest.mark.parametrize("how", ["dynamic", "static"])
@pytest.mark.parametrize("method", ["rtn", "best"])
def test_reports_are_the_errors_of_rounded_products(setting: Setting, how: str, method: str) -> None:
    """By NumPy's integers, from what is stored; the folded norm says what the input was divided by."""
    solution = setting.solve(method=method, **rounding(how))["w8a8"]
    for source, norm in (("q", "norm"), ("gate", "norm2")):
        report = next(report for report in solution.layers if report.layer == f"model.layers.0.{source}")
        before, after = setting.weights[f"{norm}.weight"].double(), solution.tensors[f"layers.0.{norm}.weight"].double()
        x = (setting.found.seen[f"model.layers.0.{source}"].double() * after / before).numpy()
        scale = np.abs(x).max() / 127
        if how == "static":
            assert float(solution.tensors[f"layers.0.{source}.input_scale"]) == pytest.approx(scale, rel=1e-6)
        x = x[::4]
        steps = np.abs(x).max(1, keepdims=True) / 127 if how == "dynamic" else scale
        codes = solution.tensors[f"layers.0.{source}.qweight"].numpy().astype(np.int32) - 128
        product = np.rint(x / steps).astype(np.int32) @ codes
        found = product * steps * solution.tensors[f"layers.0.{source}.scales"].double().numpy()
        plain = (
            setting.found.seen[f"model.layers.0.{source}"][::4].double()
            @ setting.weights[f"{source}.weight"].T.double()
        )
        expected = np.square(found - plain.numpy()).sum() / plain.square().sum()
        assert report.error == pytest.approx(float(expected), rel=1e-2)
        assert list(report.steps) == ["rtn", "smooth", "solved"]
        assert report.error == report.steps["solved"] <= report.steps["smooth"] * 1.01
        assert report.steps["smooth"] < report.steps["rtn"] == report.rtn_error


def test_a_linear_that_loses_more_than_allowed_is_kept_and_no_other(setting: Setting) -> None:
    plain = {report.layer: report for report in setting.solve(**rounding("static", keep_above=1.0))["w8a8"].layers}
    limit = sorted(report.error for report in plain.values())[3]
    solution = setting.solve(**rounding("static", keep_above=limit))["w8a8"]
    assert [report.error for report in solution.layers] == [report.error for report in plain.values()]
    for report in solution.layers:
        linear = report.layer.removeprefix("model.")
        assert report.stays_float == (report.error > limit)
        assert (f"{linear}.weight" in solution.tensors) == report.stays_float
        assert (
            (f"{linear}.qweight" in solution.tensors)
            == (f"{linear}.input_scale" in solution.tensors)
            != report.stays_float
        )
    assert sum(report.stays_float for report in solution.layers) == 2


def test_the_model_itself_does_not_change_with_a_grid_that_rounds_activations(setting: Setting) -> None:
    alone, beside = setting.solve(also={})[PRIMARY], setting.solve(**rounding("static"))[PRIMARY]
    assert all(torch.equal(*pair) for pair in _paired(alone, beside))
    assert alone.layers == beside.layers


def test_powers_of_two_divide_kept_weights_and_scales_of_inputs_too(setting: Setting) -> None:
    plain = setting.solve(**rounding("static"))["w8a8"].tensors
    floats = setting.solve(**rounding("static", keep_above=1e-12))["w8a8"].tensors
    setting.found.peaks |= {"model.layers.0.up": 1e5, "model.layers.0.down:in": 2e5}  # up by 4; down multiplies again
    safe = setting.solve(fp16_safe=True, **rounding("static"))["w8a8"].tensors
    assert torch.equal(safe["layers.0.down.input_scale"] * 4, plain["layers.0.down.input_scale"])
    for linear in ("q", "gate", "up"):
        assert torch.equal(safe[f"layers.0.{linear}.input_scale"], plain[f"layers.0.{linear}.input_scale"])
    safe = setting.solve(fp16_safe=True, **rounding("static", keep_above=1e-12))["w8a8"].tensors
    for linear, factor in (("q", 1), ("up", 4), ("down", 0.25)):
        name = f"layers.0.{linear}.weight"
        assert torch.equal(safe[name] * factor, floats[name])
