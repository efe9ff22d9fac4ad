"""What is written besides 4-bit linears: narrowed, small and dropped tensors, further solutions, and their sizes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.tiny import edit_weights, store_as_published
from safetensors.torch import load_file
from torch import Tensor

import edgepress.loading  # noqa: F401  registers the loader
from edgepress.numerics.affine import dequantize
from edgepress.numerics.awq_packing import AwqTensors, unpack_awq
from edgepress.quantize.pipeline import QuantizeResult, quantize_pipeline
from edgepress.recipes.schema import GenerationSettings, Recipe, Scheme

CALIBRATION = GenerationSettings(count=1, steps=1)
ALSO = {
    "board": {"bits": 4, "group_size": "channel", "zero_point": False, "narrow": True},
    "bytes": {"bits": 8, "group_size": 64, "zero_point": True},
}
KEPT = 1.3e-4  # of these random weights some linears lose more, some less
W8A8 = {
    "bits": 8,
    "group_size": "channel",
    "zero_point": False,
    "narrow": True,
    "activations": "static",
    "keep_above": KEPT,
}
SMALL: dict[str, Any] = {"method": "rtn", "embeddings": "int8"}
TEXT_ONLY: dict[str, Any] = {"method": "rtn", "components": ["text_encoder"]}
PACKED = AwqTensors._fields


def recipe_for(quantize: dict[str, Any], dtype: str) -> Recipe:
    return Recipe.model_validate(
        {"device": "test", "dtype": dtype, "quantize": quantize, "calibration": CALIBRATION.model_dump()}
    )


@pytest.fixture(scope="module")
def small(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantizeResult:
    """Everything that saves bytes."""
    return quantize_pipeline(recipe_for(SMALL, "bfloat16"), tiny, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def solved(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantizeResult:
    """With further solutions."""
    also = ALSO | {"w8a8": W8A8}
    return quantize_pipeline(
        recipe_for({"method": "rtn", "also": also}, "float32"), tiny, tmp_path_factory.mktemp("solved")
    )


@pytest.fixture(scope="module")
def plain(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> QuantizeResult:
    return quantize_pipeline(recipe_for({"method": "rtn"}, "float32"), tiny, tmp_path_factory.mktemp("plain"))


def tensors_of(folder: Path) -> dict[str, Tensor]:
    (file,) = folder.glob("*.safetensors")
    return load_file(file)


def stored_bytes(folder: Path) -> int:
    """Bytes of the tensors in a folder's weight files: what is left of a file after its header."""
    sizes = []
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as stream:
            header = int.from_bytes(stream.read(8), "little")
        sizes.append(file.stat().st_size - 8 - header)
    return sum(sizes)


def quantization_config(pressed: QuantizeResult, component: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((pressed.output / "model" / component / "config.json").read_text("utf-8"))
    said: dict[str, Any] = config["quantization_config"]
    return said


# ---------------------------------------------------------------- bytes


@pytest.mark.parametrize("component", ["text_encoder", "transformer"])
@pytest.mark.parametrize("pressed", ["small", "plain"])
def test_savings_account_for_every_byte(
    tiny: Path, component: str, pressed: str, request: pytest.FixtureRequest
) -> None:
    found: QuantizeResult = request.getfixturevalue(pressed)
    saved = stored_bytes(tiny / component) - stored_bytes(found.output / "model" / component)
    assert sum(found.manifest.size_savings[component].values()) == saved > 0


def test_savings_account_for_a_head_that_is_dropped(tiny: Path, tmp_path: Path) -> None:
    source = tmp_path / "published"
    shutil.copytree(tiny, source)
    store_as_published(source, head=True)
    found = quantize_pipeline(recipe_for(TEXT_ONLY, "float32"), source, tmp_path / "artifact")
    saved = stored_bytes(source / "text_encoder") - stored_bytes(found.output / "model" / "text_encoder")
    assert sum(found.manifest.size_savings["text_encoder"].values()) == saved


def test_each_measure_saves_what_it_took(tiny: Path, small: QuantizeResult, plain: QuantizeResult) -> None:
    texts = tensors_of(tiny / "text_encoder")
    unread = sum(tensor.nbytes for name, tensor in texts.items() if name.startswith("layers.2."))
    rows, width = texts["embed_tokens.weight"].shape
    for pressed in (small, plain):
        assert pressed.manifest.size_savings["text_encoder"]["unread parts"] == unread
        assert pressed.manifest.size_savings["transformer"]["unread parts"] == 0
    assert small.manifest.size_savings["text_encoder"]["8-bit embeddings"] == rows * (4 * width - width - 2)
    assert plain.manifest.size_savings["text_encoder"]["8-bit embeddings"] == 0
    assert plain.manifest.size_savings["transformer"]["kept matrices"] == 0
    assert small.manifest.size_savings["transformer"]["kept matrices"] > 0


# ---------------------------------------------------------------- kept tensors


def test_kept_tensors_are_no_wider_than_the_reference_computes(tiny: Path, small: QuantizeResult) -> None:
    for component in ("text_encoder", "transformer"):
        original, stored = tensors_of(tiny / component), tensors_of(small.output / "model" / component)
        kept = stored.keys() & original.keys()
        assert kept
        for name in kept:
            assert torch.equal(stored[name], original[name].bfloat16()), name
        assert {tensor.dtype for name, tensor in stored.items() if name.endswith(".scales")} == {torch.float16}


def test_in_float32_kept_tensors_stay_as_they_were(tiny: Path, plain: QuantizeResult) -> None:
    for component in ("text_encoder", "transformer"):
        original, stored = tensors_of(tiny / component), tensors_of(plain.output / "model" / component)
        for name in stored.keys() & original.keys():
            assert stored[name].dtype == original[name].dtype
            assert torch.equal(stored[name], original[name]), name


def test_what_is_narrower_than_the_reference_computes_is_not_widened(tiny: Path, tmp_path: Path) -> None:
    source = tmp_path / "pipeline"
    shutil.copytree(tiny, source)
    with edit_weights(source / "text_encoder") as tensors:
        tensors.update({name: tensor.half() for name, tensor in tensors.items()})
    recipe = recipe_for(TEXT_ONLY, "float32")
    pressed = quantize_pipeline(recipe, source, tmp_path / "artifact")
    stored = tensors_of(pressed.output / "model" / "text_encoder")
    assert stored["embed_tokens.weight"].dtype == torch.float16
    assert stored["layers.0.input_layernorm.weight"].dtype == torch.float16
    assert pressed.manifest.size_savings["text_encoder"]["kept matrices"] == 0


@pytest.mark.parametrize("component", ["text_encoder", "transformer"])
def test_every_matrix_is_quantized_or_said_to_be_kept(
    small: QuantizeResult, plain: QuantizeResult, component: str
) -> None:
    for pressed in (small, plain):
        stored = tensors_of(pressed.output / "model" / component)
        matrices = [name for name, tensor in stored.items() if name.endswith(".weight") and tensor.ndim == 2]
        said = quantization_config(pressed, component)
        small_rows = said.get("embeddings", [])
        assert {name.removesuffix(".weight") for name in matrices} == {*said["modules_to_not_convert"]} - {*small_rows}


# ---------------------------------------------------------------- embeddings


def test_embeddings_in_8_bits_are_the_original_ones_within_half_a_step(tiny: Path, small: QuantizeResult) -> None:
    stored = tensors_of(small.output / "model" / "text_encoder")
    weight = tensors_of(tiny / "text_encoder")["embed_tokens.weight"]
    codes, scales = stored["embed_tokens.codes"], stored["embed_tokens.scales"].float()
    assert codes.dtype == torch.int8
    assert "embed_tokens.weight" not in stored
    assert ((codes.float() * scales - weight).abs() <= 0.501 * scales).all()
    assert quantization_config(small, "text_encoder")["embeddings"] == ["embed_tokens"]
    assert "embeddings" not in quantization_config(small, "transformer")


def test_embeddings_in_8_bits_change_little_of_what_is_read(small: QuantizeResult, plain: QuantizeResult) -> None:
    from transformers import Qwen3Model

    ids = torch.arange(40)[None]
    states = []
    for pressed in (small, plain):
        model = Qwen3Model.from_pretrained(pressed.output / "model" / "text_encoder", dtype=torch.float32).eval()
        with torch.no_grad():
            states.append(model(ids, output_hidden_states=True).hidden_states[-2])
    error = (states[0] - states[1]).norm() / states[1].norm()
    assert 0 < error < 0.03


# ---------------------------------------------------------------- further solutions


def test_solutions_stand_in_the_table_of_sizes(solved: QuantizeResult) -> None:
    folder = solved.output / "model" / "solutions"
    on_disk = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert solved.manifest.sizes["solutions"] == {"before": 0, "after": on_disk}


@pytest.mark.parametrize("component", ["text_encoder", "transformer"])
@pytest.mark.parametrize("name", list(ALSO))
def test_a_solution_says_its_scheme_and_holds_every_linear(solved: QuantizeResult, component: str, name: str) -> None:
    folder = solved.output / "model" / "solutions" / name / component
    assert json.loads((folder / "config.json").read_text("utf-8")) == {"scheme": {"narrow": False} | ALSO[name]}
    solved, model = tensors_of(folder), tensors_of(solved.output / "model" / component)
    linears = {name for name in model if name.endswith(".qweight")}
    assert linears
    assert {name for name in solved if name.endswith(".qweight")} == linears


def test_a_solution_a_channel_has_the_scale_of_the_largest_weight_over_7(tiny: Path, solved: QuantizeResult) -> None:
    stored = tensors_of(solved.output / "model" / "solutions" / "board" / "transformer")
    name = "layers.0.feed_forward.w2"
    weight = tensors_of(tiny / "transformer")[f"{name}.weight"]
    packed = AwqTensors(*(stored[f"{name}.{kind}"] for kind in PACKED))
    exact = weight.abs().amax(1) / 7
    assert (packed.scales[0].float() <= exact).all(), "the largest weight would not reach the end"
    assert (packed.scales[0].float() >= exact * (1 - 2**-10)).all()
    assert ((dequantize(unpack_awq(packed)) - weight).abs() <= 0.51 * exact[:, None]).all()
    codes = unpack_awq(packed).codes
    assert (int(codes.min()), int(codes.max())) == (1, 15)


def test_a_solution_of_8_bits_holds_bytes(tiny: Path, solved: QuantizeResult) -> None:
    stored = tensors_of(solved.output / "model" / "solutions" / "bytes" / "text_encoder")
    name = "layers.0.mlp.down_proj"
    weight = tensors_of(tiny / "text_encoder")[f"{name}.weight"]
    codes, zeros, scales = (stored[f"{name}.{kind}"] for kind in PACKED)
    assert (codes.dtype, zeros.dtype, scales.dtype) == (torch.uint8, torch.uint8, torch.float16)
    assert codes.shape == (256, 128)
    assert zeros.shape == scales.shape == (256 // 64, 128)
    steps = scales.float().repeat_interleave(64, dim=0)
    found = (codes.float() - zeros.float().repeat_interleave(64, dim=0)) * steps
    # Half a step of rounding, and half a step that the whole zero point may shift an end of the range.
    assert ((found.T - weight).abs() <= 1.01 * steps.T).all()


@pytest.mark.parametrize("component", ["text_encoder", "transformer"])
def test_a_solution_that_rounds_activations_says_what_it_keeps_and_why(solved: QuantizeResult, component: str) -> None:
    folder = solved.output / "model" / "solutions" / "w8a8" / component
    stored, said = tensors_of(folder), json.loads((folder / "config.json").read_text("utf-8"))
    reports = {
        one["layer"]: one
        for one in solved.manifest.extra_scheme_layers["w8a8"]
        if one["layer"].startswith(f"{component}.")
    }
    assert said["scheme"] == Scheme.model_validate(W8A8).model_dump()
    assert said["errors"] == {layer.removeprefix(f"{component}."): one["error"] for layer, one in reports.items()}
    assert said["kept"] == [linear for linear, error in said["errors"].items() if error > KEPT]
    assert 0 < len(said["kept"]) < len(said["errors"])
    for linear in said["errors"]:
        kinds = {name.removeprefix(f"{linear}.") for name in stored if name.startswith(f"{linear}.")}
        assert kinds == ({"weight"} if linear in said["kept"] else {*PACKED, "input_scale"})


def test_the_model_beside_solutions_opens_as_ever(solved: QuantizeResult) -> None:
    from diffusers import ZImagePipeline

    pipeline = ZImagePipeline.from_pretrained(solved.output / "model")
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline("a cat", height=64, width=64, num_inference_steps=1, guidance_scale=0.0, output_type="np").images
    assert images.std() > 0


# ---------------------------------------------------------------- copies


def test_no_pickle_and_no_original_weight_is_copied(tiny: Path, tmp_path: Path) -> None:
    source = tmp_path / "pipeline"
    shutil.copytree(tiny, source)
    (source / "text_encoder" / "pytorch_model.bin").write_bytes(b"pickle")
    (source / "vae" / "notes.pkl").write_bytes(b"pickle")
    (source / "text_encoder" / "merges.txt").write_text("text")
    recipe = recipe_for(TEXT_ONLY, "float32")
    model = quantize_pipeline(recipe, source, tmp_path / "artifact").output / "model"
    before = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    after = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
    assert before - after == {"text_encoder/pytorch_model.bin", "vae/notes.pkl"}
    assert after <= before
    for file in after - {"text_encoder/config.json", "text_encoder/model.safetensors"}:
        assert (source / file).read_bytes() == (model / file).read_bytes(), file
