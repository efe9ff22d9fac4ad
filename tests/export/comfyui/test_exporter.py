"""ComfyUI's layout, dequantized as docs/formats/awq_w4a16.md of comfy-quants says.

tests/benchmarks/interop dequantizes the file with comfy-kitchen itself.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from helpers.previous_artifact import extract_previous_artifact
from helpers.published_artifact import write_published_artifact
from safetensors.torch import load_file
from torch import Tensor

from edgepress.cli.main import main
from edgepress.common.errors import UserError
from edgepress.export.comfyui.exporter import export_comfyui
from edgepress.export.comfyui.writer import pack, zero_difference
from edgepress.numerics.affine import QuantizedWeight, dequantize, minmax_qparams, quantize
from edgepress.numerics.awq_packing import AwqTensors, unpack_awq
from edgepress.numerics.quant_spec import QuantSpec

pytestmark = pytest.mark.slow


def unpack(tensors: dict[str, Tensor]) -> Tensor:
    """(uint4 - 8) * weight_scale + weight_zero, in float32."""
    codes = tensors["weight"].to(torch.int32) & 255
    values = torch.stack([codes & 15, codes >> 4], -1).flatten(1).float()
    size = json.loads(bytes(tensors["comfy_quant"].tolist()))["group_size"]
    scale, zero = (tensors[name].float().T.repeat_interleave(size, 1) for name in ("weight_scale", "weight_zero"))
    return (values - 8) * scale + zero


def make_weight(group_size: int, symmetric: bool = False) -> QuantizedWeight:
    weight = torch.randn(16, 256, generator=torch.Generator().manual_seed(0)) + 0.3
    return quantize(weight, minmax_qparams(weight, QuantSpec(4, group_size, symmetric)))


@pytest.mark.parametrize(("group_size", "stored"), [(32, 32), (64, 64), (128, 64)])
def test_only_the_zero_of_a_group_is_rounded(group_size: int, stored: int) -> None:
    weight = make_weight(group_size)
    tensors = pack(weight)
    assert json.loads(bytes(tensors["comfy_quant"].tolist())) == {"format": "awq_w4a16", "group_size": stored}
    assert tensors["weight_scale"].shape == (256 // stored, 16)
    steps = (unpack(tensors) - dequantize(weight)).abs() / weight.qparams.scales.repeat_interleave(group_size, 1)
    assert float(steps.max()) == pytest.approx(zero_difference(weight), abs=1e-4)
    assert zero_difference(weight) <= 8 * 2**-11
    symmetric = make_weight(group_size, symmetric=True)
    assert torch.equal(unpack(pack(symmetric)), dequantize(symmetric))


def test_fused_layers_hold_the_weights_of_the_artifact(tmp_path: Path) -> None:
    artifact = extract_previous_artifact(tmp_path)
    result = CliRunner().invoke(main, ["export", "comfyui", "--output", str(artifact), "--json"])
    assert result.exit_code == 0, result.output
    limit = json.loads(result.stdout)["components"]["transformer"]["max_difference"]
    stored = load_file(artifact / "comfyui" / "transformer.safetensors")
    model = load_file(next((artifact / "model" / "transformer").glob("*.safetensors")))
    prefix = "layers.0.attention.qkv."
    fused = unpack({name.removeprefix(prefix): tensor for name, tensor in stored.items() if name.startswith(prefix)})
    for rows, part in zip(fused.chunk(3), ("to_q", "to_k", "to_v"), strict=True):
        packed = AwqTensors(*(model[f"layers.0.attention.{part}.{kind}"] for kind in AwqTensors._fields))
        weight = unpack_awq(packed)
        steps = (rows - dequantize(weight)).abs() / weight.qparams.scales.repeat_interleave(32, 1)
        assert float(steps.max()) <= limit + 1e-4
    assert torch.equal(stored["x_pad_token"], model["x_pad_token"])


def test_a_pipeline_in_floats_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no INT4 weights"):
        export_comfyui(tiny, tmp_path / "out")


@pytest.mark.parametrize("verb", ["comfyui", "gguf", "onnx"])
def test_a_model_is_not_exported_to_an_artifact_with_another_one(verb: str, tmp_path: Path) -> None:
    artifact = extract_previous_artifact(tmp_path / "a")
    target = write_published_artifact(tmp_path / "b").path
    arguments = ["export", verb, "--model", str(artifact), "--output", str(target)]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, target.name in result.stderr) == (2, True)
    assert f"has another quantized model than {artifact / 'model'}" in result.stderr
    assert not (target / "comfyui").exists()
    assert not (target / "gguf").exists()
