"""GGUF files, opened by the packages that they are for: gguf, diffusers and transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers.previous_artifact import extract_previous_artifact
from helpers.tiny import edit_weights
from safetensors.torch import load_file
from torch import Tensor

from edgepress.api.verification import verify
from edgepress.cli.main import main
from edgepress.common.errors import UserError
from edgepress.export.gguf.exporter import export_gguf
from edgepress.export.weights.publishing import WeightExportResult
from edgepress.numerics.affine import dequantize
from edgepress.numerics.awq_packing import AwqTensors, unpack_awq
from edgepress.numerics.psnr import compute_psnr
from edgepress.pipelines.sampling import SamplingParams, generate_images, load_pipeline
from edgepress.prompts.prompt import Prompt

pytestmark = pytest.mark.slow

ALL_ZERO_POINTS_AT_8 = -0x77777778  # eight of them in an int32


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny artifact with zero points, groups of 32, and a solution in 8 bits."""
    return extract_previous_artifact(tmp_path_factory.mktemp("gguf"))


@pytest.fixture(scope="module")
def result(artifact: Path) -> WeightExportResult:
    return export_gguf(artifact, artifact)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a file as the `gguf` package dequantizes them."""
    reader = gguf.GGUFReader(file)
    return {tensor.name: torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type)) for tensor in reader.tensors}


def read_linears(component: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """The 4-bit layers of a component: weights (out, in), and the step between codes of each."""
    tensors = load_file(next(component.glob("*.safetensors")))
    linears = {}
    for name in (name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")):
        quantized = unpack_awq(AwqTensors(*(tensors[f"{name}.{kind}"] for kind in AwqTensors._fields)))
        scales = quantized.qparams.scales
        steps = scales.repeat_interleave(quantized.codes.shape[1] // scales.shape[1], 1)
        linears[name] = dequantize(quantized), steps
    return linears


def test_every_quantized_weight_is_that_of_the_artifact(artifact: Path, result: WeightExportResult) -> None:
    stored = read_tensors(result.folder / "transformer.gguf")
    linears = read_linears(artifact / "model" / "transformer")
    limit = result.export.components["transformer"].max_difference
    assert 0 < limit < 0.008
    for name, (weight, steps) in linears.items():
        stem, _, last = name.partition(".attention.")
        if last in ("to_q", "to_k", "to_v"):
            rows = stored[f"{stem}.attention.qkv.weight"].chunk(3)[("to_q", "to_k", "to_v").index(last)]
        else:
            rows = stored[f"{name.replace('to_out.0', 'out')}.weight"]
        assert float(((rows - weight).abs() / steps).max()) <= limit + 1e-4


def test_diffusers_generates_the_image_of_the_artifact(artifact: Path, result: WeightExportResult) -> None:
    from diffusers import GGUFQuantizationConfig, ZImageTransformer2DModel

    pipeline = load_pipeline(artifact / "model", torch.float32)
    prompts, sampling = [Prompt(id="a", prompt="a cat", language="en")], SamplingParams(64, 64, 2, 0.0)
    (expected,) = generate_images(pipeline, prompts, sampling)
    pipeline.transformer = ZImageTransformer2DModel.from_single_file(
        str(result.folder / "transformer.gguf"),
        quantization_config=GGUFQuantizationConfig(compute_dtype=torch.float32),
        config=str(artifact / "model"),
        subfolder="transformer",
        torch_dtype=torch.float32,
    )
    (image,) = generate_images(pipeline, prompts, sampling)
    psnr = compute_psnr(np.asarray(expected), np.asarray(image))
    assert psnr is None or psnr > 50


def test_transformers_opens_the_text_encoder(artifact: Path, result: WeightExportResult) -> None:
    """Its config is given, since that of the file lacks the width of heads (transformers 5.23 assumes 128)."""
    from transformers import AutoConfig, AutoModel

    folder = artifact / "model" / "text_encoder"
    values = json.loads((folder / "config.json").read_text("utf-8"))
    del values["quantization_config"]
    config = AutoConfig.for_model(**values)
    model = AutoModel.from_pretrained(result.folder, gguf_file="text_encoder.gguf", config=config, dtype=torch.float32)
    parameters = dict(model.named_parameters())
    limit = result.export.components["text_encoder"].max_difference
    for name, (weight, steps) in read_linears(folder).items():
        assert float(((parameters[f"{name}.weight"].detach() - weight).abs() / steps).max()) <= limit + 1e-4
    tensors = load_file(folder / "model.safetensors")
    assert torch.equal(
        model.embed_tokens.weight, tensors["embed_tokens.codes"] * tensors["embed_tokens.scales"].float()
    )
    unused = [parameter for name, parameter in parameters.items() if name.startswith("layers.2.")]
    assert unused
    assert not any(parameter.any() for parameter in unused)


def test_metadata_names_the_architecture(result: WeightExportResult) -> None:
    fields = {name: gguf.GGUFReader(result.folder / f"{name}.gguf").fields for name in result.export.components}
    assert fields["transformer"]["general.architecture"].contents() == "lumina2"
    encoder = fields["text_encoder"]
    assert encoder["general.architecture"].contents() == "qwen3"
    assert (encoder["qwen3.block_count"].contents(), encoder["qwen3.attention.key_length"].contents()) == (3, 64)
    assert encoder["qwen3.rope.freq_base"].contents() == 10000


def test_symmetric_codes_and_codes_in_8_bits_are_exact(artifact: Path, tmp_path: Path) -> None:
    model = tmp_path / "symmetric"
    shutil.copytree(artifact / "model", model)
    with edit_weights(model / "transformer") as tensors:
        for name in tensors:
            if name.endswith(".qzeros"):
                tensors[name].fill_(ALL_ZERO_POINTS_AT_8)
    result = export_gguf(model, tmp_path / "out", type="q4_0", components=["transformer"])
    record = result.export.components["transformer"]
    assert (record.types["Q4_0"], record.max_difference) == (15, 0)
    stored = read_tensors(result.folder / "transformer.gguf")
    for name, (weight, _) in read_linears(model / "transformer").items():
        if ".feed_forward." in name:
            assert torch.equal(stored[f"{name}.weight"], weight)
    result = export_gguf(artifact, tmp_path / "out", type="q8_0")
    tensors = load_file(next((artifact / "model" / "solutions" / "w8a8" / "transformer").glob("*.safetensors")))
    stored = read_tensors(result.folder / "transformer.gguf")
    name = "layers.0.feed_forward.w1"
    weight = (tensors[f"{name}.qweight"].float() - 128) * tensors[f"{name}.scales"].float()
    assert torch.equal(stored[f"{name}.weight"], weight.T)


def test_the_export_is_verified_with_the_artifact(tmp_path: Path) -> None:
    artifact = extract_previous_artifact(tmp_path)
    result = CliRunner().invoke(
        main, ["export", "gguf", "--output", str(artifact), "--component", "text_encoder", "--json"]
    )
    assert result.exit_code == 0, result.output
    assert list(json.loads(result.stdout)["components"]) == ["text_encoder"]
    assert verify(artifact / "gguf").passed
    with (artifact / "gguf" / "text_encoder.gguf").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    (problem,) = verify(artifact / "gguf").problems
    assert problem.path == "gguf/text_encoder.gguf"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"type": "q4_0"}, "has no symmetric 4-bit solution, which q4_0 needs"),
        ({"components": ["vae"]}, "'vae' cannot be exported to GGUF. Choose from: text_encoder, transformer."),
    ],
)
def test_bad_input_is_one_sentence(options: dict[str, Any], sentence: str, artifact: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        export_gguf(artifact, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_pipeline_in_floats_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no INT4 weights"):
        export_gguf(tiny, tmp_path / "out")
    result = CliRunner().invoke(main, ["export", "gguf"])
    assert result.exit_code == 2
    assert "Give --recipe or --output" in result.stderr
