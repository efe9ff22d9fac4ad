"""What is written besides 4-bit linears: other tensors, their dtypes, extra schemes, and all their sizes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ZImagePipeline
from helpers.tiny import edit_weights, store_as_published
from safetensors.torch import load_file, save_file
from torch import Tensor

import edgepress.loading  # noqa: F401  registers the loader
from edgepress.numerics.affine import dequantize
from edgepress.numerics.awq_packing import AwqTensors, unpack_awq
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.quantize.result import QuantizeResult
from edgepress.quantize.writer import AWQ_TENSOR_NAMES
from edgepress.recipes.schema import GenerationSettings, Recipe, Scheme

CALIBRATION = GenerationSettings(count=1, steps=1)
EXTRA_SCHEMES = {
    "board": {"bits": 4, "group_size": "channel", "symmetric": True, "narrow_range": True},
    "int8": {"bits": 8, "group_size": 64, "symmetric": False, "narrow_range": False},
}
MAX_OUTPUT_ERROR = 1.3e-4  # exceeded by some linears of these random weights
W8A8 = {
    "bits": 8,
    "group_size": "channel",
    "symmetric": True,
    "narrow_range": True,
    "activations": "static",
    "max_output_error": MAX_OUTPUT_ERROR,
}
SMALL: dict[str, Any] = {"method": "rtn", "embeddings": "int8"}
TEXT_ONLY: dict[str, Any] = {"method": "rtn", "components": ["text_encoder"]}


def make_recipe(quantize: dict[str, Any], dtype: str) -> Recipe:
    return Recipe.model_validate(
        {"device": "test", "dtype": dtype, "quantize": quantize, "calibration": CALIBRATION.model_dump()}
    )


@pytest.fixture(scope="module")
def small(lean: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantizeResult:
    """Everything that saves bytes."""
    return quantize_pipeline(make_recipe(SMALL, "bfloat16"), lean, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def with_schemes(lean: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantizeResult:
    """With extra schemes."""
    extra_schemes = EXTRA_SCHEMES | {"w8a8": W8A8}
    return quantize_pipeline(
        make_recipe({"method": "rtn", "extra_schemes": extra_schemes}, "float32"),
        lean,
        tmp_path_factory.mktemp("with_schemes"),
    )


@pytest.fixture(scope="module")
def plain(lean: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantizeResult:
    return quantize_pipeline(make_recipe({"method": "rtn"}, "float32"), lean, tmp_path_factory.mktemp("plain"))


def load_tensors(folder: Path) -> dict[str, Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def count_bytes(folder: Path) -> int:
    """Bytes of the tensors in a folder's weight files: what is left of a file after its header."""
    sizes = []
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as stream:
            header = int.from_bytes(stream.read(8), "little")
        sizes.append(file.stat().st_size - 8 - header)
    return sum(sizes)


def load_quantization_config(result: QuantizeResult, component: str) -> dict[str, Any]:
    config = json.loads((result.model / component / "config.json").read_text("utf-8"))
    section: dict[str, Any] = config["quantization_config"]
    return section


# ---------------------------------------------------------------- bytes


@pytest.mark.parametrize("component", ["text_encoder", "transformer"])
@pytest.mark.parametrize("fixture", ["small", "plain"])
def test_savings_account_for_every_byte(
    lean: Path, component: str, fixture: str, request: pytest.FixtureRequest
) -> None:
    result: QuantizeResult = request.getfixturevalue(fixture)
    saved = count_bytes(lean / component) - count_bytes(result.model / component)
    assert sum(result.manifest.size_savings[component].values()) == saved > 0


def test_savings_account_for_a_head_that_is_dropped(lean: Path, tmp_path: Path) -> None:
    source = tmp_path / "published"
    shutil.copytree(lean, source)
    store_as_published(source, head=True)
    result = quantize_pipeline(make_recipe(TEXT_ONLY, "float32"), source, tmp_path / "artifact")
    saved = count_bytes(source / "text_encoder") - count_bytes(result.model / "text_encoder")
    assert sum(result.manifest.size_savings["text_encoder"].values()) == saved


def test_each_measure_saves_what_it_took(lean: Path, small: QuantizeResult, plain: QuantizeResult) -> None:
    texts = load_tensors(lean / "text_encoder")
    unused = sum(tensor.nbytes for name, tensor in texts.items() if name.startswith("layers.2."))
    rows, width = texts["embed_tokens.weight"].shape
    for result in (small, plain):
        assert result.manifest.size_savings["text_encoder"]["unused modules"] == unused
        assert result.manifest.size_savings["transformer"]["unused modules"] == 0
    assert small.manifest.size_savings["text_encoder"]["8-bit embeddings"] == rows * (4 * width - width - 2)
    assert plain.manifest.size_savings["text_encoder"]["8-bit embeddings"] == 0
    assert plain.manifest.size_savings["transformer"]["unquantized matrices"] == 0
    assert small.manifest.size_savings["transformer"]["unquantized matrices"] > 0


# ---------------------------------------------------------------- unquantized tensors


def test_unquantized_tensors_are_no_wider_than_the_reference_computes(lean: Path, small: QuantizeResult) -> None:
    for component in ("text_encoder", "transformer"):
        original, stored = load_tensors(lean / component), load_tensors(small.model / component)
        unquantized = stored.keys() & original.keys()
        assert unquantized
        for name in unquantized:
            assert torch.equal(stored[name], original[name].bfloat16()), name
        assert {tensor.dtype for name, tensor in stored.items() if name.endswith(".scales")} == {torch.float16}


def test_in_float32_unquantized_tensors_do_not_change(lean: Path, plain: QuantizeResult) -> None:
    for component in ("text_encoder", "transformer"):
        original, stored = load_tensors(lean / component), load_tensors(plain.model / component)
        for name in stored.keys() & original.keys():
            assert stored[name].dtype == original[name].dtype
            assert torch.equal(stored[name], original[name]), name


def test_tensors_narrower_than_the_reference_computes_are_not_widened(lean: Path, tmp_path: Path) -> None:
    source = tmp_path / "pipeline"
    shutil.copytree(lean, source)
    with edit_weights(source / "text_encoder") as tensors:
        tensors.update({name: tensor.half() for name, tensor in tensors.items()})
    recipe = make_recipe(TEXT_ONLY, "float32")
    result = quantize_pipeline(recipe, source, tmp_path / "artifact")
    stored = load_tensors(result.model / "text_encoder")
    assert stored["embed_tokens.weight"].dtype == torch.float16
    assert stored["layers.0.input_layernorm.weight"].dtype == torch.float16
    assert result.manifest.size_savings["text_encoder"]["unquantized matrices"] == 0


@pytest.mark.parametrize("component", ["text_encoder", "transformer"])
def test_every_matrix_is_quantized_or_listed_as_unquantized(
    small: QuantizeResult, plain: QuantizeResult, component: str
) -> None:
    for result in (small, plain):
        stored = load_tensors(result.model / component)
        matrices = {name for name, tensor in stored.items() if name.endswith(".weight") and tensor.ndim == 2}
        config = load_quantization_config(result, component)
        expected = {*config["modules_to_not_convert"]} - {*config.get("embeddings", [])}
        assert {name.removesuffix(".weight") for name in matrices} == expected


# ---------------------------------------------------------------- embeddings


def test_embeddings_in_8_bits_are_within_half_a_step_of_the_original(lean: Path, small: QuantizeResult) -> None:
    stored = load_tensors(small.model / "text_encoder")
    weight = load_tensors(lean / "text_encoder")["embed_tokens.weight"]
    codes, scales = stored["embed_tokens.codes"], stored["embed_tokens.scales"].float()
    assert codes.dtype == torch.int8
    assert "embed_tokens.weight" not in stored
    assert ((codes.float() * scales - weight).abs() <= 0.501 * scales).all()
    assert load_quantization_config(small, "text_encoder")["embeddings"] == ["embed_tokens"]
    assert "embeddings" not in load_quantization_config(small, "transformer")


def test_embeddings_in_8_bits_change_hidden_states_little(small: QuantizeResult, plain: QuantizeResult) -> None:
    from transformers import Qwen3Model

    ids = torch.arange(40)[None]
    states = []
    for result in (small, plain):
        model = Qwen3Model.from_pretrained(result.model / "text_encoder", dtype=torch.float32).eval()
        with torch.no_grad():
            states.append(model(ids, output_hidden_states=True).hidden_states[-2])
    error = (states[0] - states[1]).norm() / states[1].norm()
    assert 0 < error < 0.03


# ---------------------------------------------------------------- extra schemes


def test_extra_schemes_are_counted_in_the_sizes(with_schemes: QuantizeResult) -> None:
    folder = with_schemes.model / "solutions"
    on_disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert with_schemes.manifest.sizes["solutions"] == {"before": 0, "after": on_disk}


@pytest.mark.parametrize("component", ["text_encoder", "transformer"])
@pytest.mark.parametrize("name", list(EXTRA_SCHEMES))
def test_an_extra_scheme_is_described_and_has_every_linear(
    with_schemes: QuantizeResult, component: str, name: str
) -> None:
    folder = with_schemes.model / "solutions" / name / component
    assert json.loads((folder / "config.json").read_text("utf-8")) == {"scheme": EXTRA_SCHEMES[name]}
    stored, model = load_tensors(folder), load_tensors(with_schemes.model / component)
    linears = {name for name in model if name.endswith(".qweight")}
    assert linears
    assert {name for name in stored if name.endswith(".qweight")} == linears


def test_a_scheme_per_channel_has_the_scale_of_the_largest_weight_over_7(
    lean: Path, with_schemes: QuantizeResult
) -> None:
    stored = load_tensors(with_schemes.model / "solutions" / "board" / "transformer")
    name = "layers.0.feed_forward.w2"
    weight = load_tensors(lean / "transformer")[f"{name}.weight"]
    packed = AwqTensors(*(stored[f"{name}.{kind}"] for kind in AWQ_TENSOR_NAMES))
    exact = weight.abs().amax(1) / 7
    assert (packed.scales[0].float() <= exact).all(), "the largest weight would not reach the last code"
    assert (packed.scales[0].float() >= exact * (1 - 2**-10)).all()
    assert ((dequantize(unpack_awq(packed)) - weight).abs() <= 0.51 * exact[:, None]).all()
    codes = unpack_awq(packed).codes
    assert (int(codes.min()), int(codes.max())) == (1, 15)


def test_a_scheme_of_8_bits_is_stored_in_bytes(lean: Path, with_schemes: QuantizeResult) -> None:
    stored = load_tensors(with_schemes.model / "solutions" / "int8" / "text_encoder")
    name = "layers.0.mlp.down_proj"
    weight = load_tensors(lean / "text_encoder")[f"{name}.weight"]
    codes, zero_points, scales = (stored[f"{name}.{kind}"] for kind in AWQ_TENSOR_NAMES)
    assert (codes.dtype, zero_points.dtype, scales.dtype) == (torch.uint8, torch.uint8, torch.float16)
    assert codes.shape == (256, 128)
    assert zero_points.shape == scales.shape == (256 // 64, 128)
    steps = scales.float().repeat_interleave(64, dim=0)
    values = (codes.float() - zero_points.float().repeat_interleave(64, dim=0)) * steps
    # Half a step of rounding, and half a step by which rounding the zero point may shift an end of the range.
    assert ((values.T - weight).abs() <= 1.01 * steps.T).all()


@pytest.mark.parametrize("component", ["text_encoder", "transformer"])
def test_a_w8a8_scheme_lists_errors_and_float_modules(with_schemes: QuantizeResult, component: str) -> None:
    folder = with_schemes.model / "solutions" / "w8a8" / component
    stored, config = load_tensors(folder), json.loads((folder / "config.json").read_text("utf-8"))
    layers = [layer for layer in with_schemes.layers("w8a8") if layer.layer.startswith(f"{component}.")]
    assert config["scheme"] == Scheme.model_validate(W8A8).model_dump()
    errors, float_modules = config["errors"], config["float_modules"]
    assert errors == {layer.layer.removeprefix(f"{component}."): layer.error for layer in layers}
    assert float_modules == [linear for linear, error in errors.items() if error > MAX_OUTPUT_ERROR]
    assert 0 < len(float_modules) < len(errors)
    for linear in errors:
        kinds = {name.removeprefix(f"{linear}.") for name in stored if name.startswith(f"{linear}.")}
        assert kinds == ({"weight"} if linear in float_modules else {*AWQ_TENSOR_NAMES, "input_scale"})


def test_a_model_with_extra_schemes_can_be_loaded(with_schemes: QuantizeResult) -> None:
    from diffusers import ZImagePipeline

    pipeline = ZImagePipeline.from_pretrained(with_schemes.model)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline("a cat", height=64, width=64, num_inference_steps=1, guidance_scale=0.0, output_type="np").images
    assert images.std() > 0


# ---------------------------------------------------------------- copies


def test_no_pickle_and_no_original_weight_is_copied(lean: Path, tmp_path: Path) -> None:
    source = tmp_path / "pipeline"
    shutil.copytree(lean, source)
    (source / "text_encoder" / "pytorch_model.bin").write_bytes(b"pickle")
    (source / "vae" / "notes.pkl").write_bytes(b"pickle")
    (source / "text_encoder" / "merges.txt").write_text("text")
    recipe = make_recipe(TEXT_ONLY, "float32")
    model = quantize_pipeline(recipe, source, tmp_path / "artifact").model
    before = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    after = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
    assert before - after == {"text_encoder/pytorch_model.bin", "vae/notes.pkl"}
    assert after - before == {"README.md"}
    for file in after - {"README.md", "text_encoder/config.json", "text_encoder/model.safetensors"}:
        assert (source / file).read_bytes() == (model / file).read_bytes(), file


# ---------------------------------------------------------------- sources that are stored in unusual ways


def test_what_is_written_is_read_by_the_libraries_alone(lean: Path, tmp_path: Path) -> None:
    """The source has only a variant, wrapped names, strays and a class with a head; `model/` has none of them."""
    source, artifact = tmp_path / "source", tmp_path / "artifact"
    shutil.copytree(lean, source)
    store_as_published(source, head=True)
    index = json.loads((source / "model_index.json").read_text())
    index["text_encoder"] = ["transformers", "Qwen3ForCausalLM"]
    (source / "model_index.json").write_text(json.dumps(index))
    with edit_weights(source / "vae") as tensors:
        renamed = {f"_orig_mod.{name}": tensor for name, tensor in tensors.items()}
        tensors.clear()
        tensors.update(renamed)
    for file in source.glob("*/*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))
    shutil.copytree(source / "vae", source / "prior")
    for file in ("vae/backup.safetensors", "whole_model.safetensors"):
        save_file({"w": torch.ones(1)}, source / file)
    (source / "README.md").write_text("Licence: none.")
    quantize_pipeline(make_recipe(TEXT_ONLY, "float32"), source, artifact)
    model = artifact / "model"
    pipeline = ZImagePipeline.from_pretrained(model)
    for component in ("transformer", "vae"):
        expected = load_tensors(lean / component)
        weights = getattr(pipeline, component).state_dict()
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())
    assert type(pipeline.text_encoder).__name__ == "Qwen3Model"
    names = {"model.safetensors", "diffusion_pytorch_model.safetensors"}
    assert {path.name for path in model.rglob("*.safetensors")} == names
    assert not (model / "whole_model.safetensors").exists()
    assert not (model / "prior").exists()
    assert (model / "README.source.md").read_text() == "Licence: none."


def test_a_readme_says_how_to_open_the_model(plain: QuantizeResult) -> None:
    text = (plain.model / "README.md").read_text("utf-8")
    assert "import edgepress.loading" in text
    assert "edgepress export onnx --model" in text
    assert "README.md" in {file.path for file in plain.manifest.files}


def test_opening_the_artifact_names_its_model(plain: QuantizeResult) -> None:
    with pytest.raises(OSError, match=r"is an artifact of edgepress.*from_pretrained\('.*model'\)"):
        ZImagePipeline.from_pretrained(plain.model.parent)


def test_a_linear_and_an_embedding_beyond_float16_stay_in_floats(
    lean: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The scale of a query cannot move: a norm follows, whose epsilon it would change."""
    source, name = tmp_path / "source", "layers.0.self_attn.q_proj"
    shutil.copytree(lean, source)
    with edit_weights(source / "text_encoder") as tensors:
        tensors[f"{name}.weight"] *= 2.0**-30
        tensors["embed_tokens.weight"] *= 2.0**-30
    result = quantize_pipeline(
        make_recipe(TEXT_ONLY | {"embeddings": "int8"}, "float32"), source, tmp_path / "artifact"
    )
    assert f"text_encoder.{name} stays in floating point" in caplog.text
    (layer,) = (layer for layer in result.manifest.layers if layer["stays_float"])
    assert layer["layer"] == f"text_encoder.{name}"
    config = json.loads((result.model / "text_encoder" / "config.json").read_text())["quantization_config"]
    assert {name, "embed_tokens"} <= set(config["modules_to_not_convert"])
    stored, original = load_tensors(result.model / "text_encoder"), load_tensors(source / "text_encoder")
    for weight in (f"{name}.weight", "embed_tokens.weight"):
        assert torch.equal(stored[weight], original[weight])
    loaded = ZImagePipeline.from_pretrained(result.model).text_encoder.state_dict()
    assert torch.equal(loaded[f"{name}.weight"], original[f"{name}.weight"])
