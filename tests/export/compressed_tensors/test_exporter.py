"""The format pack-quantized, unpacked by hand.

tests/benchmarks/interop opens the folder with compressed-tensors itself.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from helpers.previous_artifact import extract_previous_artifact
from safetensors.torch import load_file
from torch import Tensor

from edgepress.cli.main import main
from edgepress.common.errors import UserError
from edgepress.export.compressed_tensors.exporter import export_compressed_tensors
from edgepress.export.compressed_tensors.writer import pack
from edgepress.numerics.affine import dequantize, minmax_qparams, quantize
from edgepress.numerics.awq_packing import AwqTensors, unpack_awq
from edgepress.numerics.quant_spec import QuantSpec

pytestmark = pytest.mark.slow


def unpack_row(packed: Tensor) -> Tensor:
    """int32 (rows, n) as 4-bit values (rows, 8 n), the lowest bits first."""
    shifts = torch.arange(0, 32, 4)
    return ((packed[..., None].long() >> shifts) & 15).flatten(1)


def unpack(tensors: dict[str, Tensor]) -> Tensor:
    codes, zeros = unpack_row(tensors["_packed"]), unpack_row(tensors["_zero_point"].T).T
    assert tuple(tensors["_shape"].tolist()) == codes.shape
    size = codes.shape[1] // zeros.shape[1]
    scales = tensors["_scale"].float().repeat_interleave(size, 1)
    return (codes - zeros.repeat_interleave(size, 1)).float() * scales


@pytest.mark.parametrize("group_size", [32, 128])
def test_codes_scales_and_zero_points_are_exact(group_size: int) -> None:
    weight = torch.randn(24, 256, generator=torch.Generator().manual_seed(0)) + 0.3
    quantized = quantize(weight, minmax_qparams(weight, QuantSpec(4, group_size)))
    assert torch.equal(unpack(pack(quantized)), dequantize(quantized))


def test_the_text_encoder_is_that_of_the_artifact(tmp_path: Path) -> None:
    artifact = extract_previous_artifact(tmp_path)
    result = CliRunner().invoke(main, ["export", "compressed-tensors", "--output", str(artifact), "--json"])
    assert result.exit_code == 0, result.output
    folder = artifact / "compressed-tensors" / "text_encoder"
    stored, model = (
        load_file(folder / "model.safetensors"),
        load_file(artifact / "model/text_encoder/model.safetensors"),
    )
    linears = [name.removesuffix(".qweight") for name in model if name.endswith(".qweight")]
    for name in linears:
        tensors = {kind: stored[f"{name}.weight{kind}"] for kind in ("_packed", "_zero_point", "_scale", "_shape")}
        packed = AwqTensors(*(model[f"{name}.{kind}"] for kind in AwqTensors._fields))
        assert torch.equal(unpack(tensors), dequantize(unpack_awq(packed)))
    config = json.loads((folder / "config.json").read_text("utf-8"))["quantization_config"]
    ((_, group),) = config["config_groups"].items()
    assert (config["format"], group["weights"]["group_size"]) == ("pack-quantized", 32)
    targets = [re.compile(target.removeprefix("re:")) for target in group["targets"]]
    assert all(any(target.search(name) for target in targets) for name in linears)
    assert (artifact / "compressed-tensors" / "tokenizer" / "tokenizer.json").exists()


def test_a_pipeline_in_floats_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no text encoder with INT4 weights"):
        export_compressed_tensors(tiny, tmp_path / "out")
