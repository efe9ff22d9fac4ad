"""Whole single-file checkpoints become pipeline folders, weight for weight, which the genuine loader opens."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionXLPipeline
from helpers.tiny_families import SD3, SDXL, clip, randomize, write_tiny_family
from helpers.whole_checkpoints import (
    Tensors,
    name_clip,
    name_denoiser,
    name_open_clip,
    name_vae,
    read_component,
    read_config,
    write_checkpoint,
)
from safetensors.torch import load_file, save_file
from torch import nn

import edgepress
from edgepress.benchmarks.synthetic.tiny_pipelines import write_tiny_pipeline
from edgepress.common.errors import UserError
from edgepress.models.base.single_file import SingleFileLayout
from edgepress.models.sd3.single_file import LAYOUTS as SD3_LAYOUTS
from edgepress.models.sdxl.single_file import make_unet_layout
from edgepress.pipelines.hub import resolve_pipeline
from edgepress.quantize.plan import build_plan
from edgepress.recipes.schema import QuantizationSettings

pytestmark = pytest.mark.slow

POSITIONS = {"cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None]}
Groups = dict[str, Tensors]


def name_unet(folder: Path) -> Tensors:
    layout = make_unet_layout(read_config(folder) | {"addition_embed_type": "text_time"})
    assert layout is not None
    return name_denoiser(read_component(folder), layout.names)


def name_transformer(folder: Path) -> Tensors:
    config = read_config(folder)
    layout = SD3_LAYOUTS[config["_class_name"]]
    layout = layout if isinstance(layout, SingleFileLayout) else layout(config)
    assert layout is not None
    return name_denoiser(read_component(folder), layout.names)


def group_sd15(folder: Path) -> Groups:
    return {
        "model.diffusion_model.": name_unet(folder / "unet"),
        "first_stage_model.": name_vae(read_component(folder / "vae")),
        "cond_stage_model.transformer.": name_clip(read_component(folder / "text_encoder")),
    }


def group_sdxl(folder: Path) -> Groups:
    return {
        "model.diffusion_model.": name_unet(folder / "unet"),
        "first_stage_model.": name_vae(read_component(folder / "vae")),
        "conditioner.embedders.0.transformer.": name_clip(read_component(folder / "text_encoder")),
        "conditioner.embedders.1.model.": name_open_clip(read_component(folder / "text_encoder_2"))
        | {"logit_scale": torch.ones(())},
    }


def group_sd3(folder: Path) -> Groups:
    return {
        "model.diffusion_model.": name_transformer(folder / "transformer"),
        "first_stage_model.": name_vae(read_component(folder / "vae")),
        "text_encoders.clip_l.transformer.": name_clip(read_component(folder / "text_encoder")),
        "text_encoders.clip_g.transformer.": name_clip(read_component(folder / "text_encoder_2")),
        "text_encoders.t5xxl.transformer.": read_component(folder / "text_encoder_3"),
    }


def write_sd15(folder: Path) -> None:
    write_tiny_pipeline("StableDiffusionPipeline", folder)


def write_sd3(folder: Path) -> None:
    """The first text encoder of the release projects nothing, so its widths are equal."""
    write_tiny_family(SD3, folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        encoder = randomize(type(clip(projected=True))(clip(projected=True).config.__class__(**_square_config())))
    encoder.text_projection.weight = nn.Parameter(torch.eye(32))
    encoder.save_pretrained(folder / "text_encoder")


def _square_config() -> dict[str, int]:
    config = clip(projected=True).config.to_dict()
    return config | {"projection_dim": config["hidden_size"]}


KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Groups]]] = {
    "StableDiffusionPipeline": (write_sd15, group_sd15),
    SDXL: (lambda folder: write_tiny_family(SDXL, folder), group_sdxl),
    SD3: (write_sd3, group_sd3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_component_has_the_weights_of_the_file(kind: str, tmp_path: Path) -> None:
    write, group = KINDS[kind]
    write(tmp_path / "original")
    groups = group(tmp_path / "original")
    extra = POSITIONS if kind == "StableDiffusionPipeline" else {}
    file = write_checkpoint(tmp_path / "model.safetensors", groups, **extra)
    base = shutil.copytree(tmp_path / "original", tmp_path / "base")
    for weights in base.glob("*/*.safetensors"):
        weights.unlink()
    result = edgepress.convert(file, base=base, output=tmp_path / "new")
    names = sorted(folder.parent.name for folder in (tmp_path / "original").glob("*/config.json"))
    assert list(result.components) == names
    original = DiffusionPipeline.from_pretrained(tmp_path / "original")
    opened = DiffusionPipeline.from_pretrained(tmp_path / "new", use_safetensors=True)
    for name in names:
        expected, actual = (getattr(pipeline, name).state_dict() for pipeline in (original, opened))
        assert expected.keys() == actual.keys()
        different = [key for key in expected if not torch.equal(expected[key], actual[key])]
        assert not different, (name, different)
    build_plan(tmp_path / "new", QuantizationSettings())


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A pipeline folder and its checkpoint."""
    folder = tmp_path_factory.mktemp("sdxl")
    write_tiny_family(SDXL, folder / "pipeline")
    return folder / "pipeline", write_checkpoint(folder / "model.safetensors", group_sdxl(folder / "pipeline"))


def test_the_loader_of_diffusers_reads_the_same(sdxl: tuple[Path, Path], tmp_path: Path) -> None:
    base, file = sdxl
    edgepress.convert(file, base=base, output=tmp_path / "new")
    expected = StableDiffusionXLPipeline.from_single_file(file, config=str(base), local_files_only=True)
    for name in ("unet", "vae", "text_encoder"):  # diffusers tells encoders by their widths, which are equal here
        state = getattr(expected, name).state_dict()
        actual = getattr(StableDiffusionXLPipeline.from_pretrained(tmp_path / "new"), name).state_dict()
        assert all(torch.equal(actual[key], state[key]) for key in state)


def test_what_the_file_lacks_is_the_bases(sdxl: tuple[Path, Path], tmp_path: Path) -> None:
    base, file = sdxl
    tensors = {name: tensor for name, tensor in load_file(file).items() if not name.startswith("first_stage_model.")}
    save_file(tensors, tmp_path / "partial.safetensors")
    result = edgepress.convert(tmp_path / "partial.safetensors", base=base, output=tmp_path / "new")
    assert result.components == ("text_encoder", "text_encoder_2", "unet")
    stored, original = (read_component(folder / "vae") for folder in (tmp_path / "new", base))
    assert all(torch.equal(stored[name], original[name]) for name in original)
    bare = shutil.copytree(base, tmp_path / "bare")
    next((bare / "vae").glob("*.safetensors")).unlink()
    with pytest.raises(UserError, match=r"^Neither .*partial\.safetensors nor .*bare has the weights of the vae"):
        edgepress.convert(tmp_path / "partial.safetensors", base=bare, output=tmp_path / "newer")


def test_weights_that_no_component_has_are_mentioned(
    sdxl: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base, file = sdxl
    save_file(load_file(file) | {"first_stage_model.loss.logvar": torch.ones(3)}, tmp_path / "more.safetensors")
    edgepress.convert(tmp_path / "more.safetensors", base=base, output=tmp_path / "new")
    assert [record.getMessage() for record in caplog.records if "first_stage_model" in record.getMessage()] == [
        f"{tmp_path / 'more.safetensors'}: 3 values under first_stage_model.* are no part of the vae, and left out."
    ]


def test_one_component_can_be_taken(sdxl: tuple[Path, Path], tmp_path: Path) -> None:
    base, file = sdxl
    assert edgepress.convert(file, base=base, output=tmp_path / "new", component="vae").components == ("vae",)
    with pytest.raises(UserError, match=r"has no component 'transformer'\. Choose from: text_encoder, .*, unet, vae"):
        edgepress.convert(file, base=base, output=tmp_path / "newer", component="transformer")


def drop_weight(tensors: Tensors) -> None:
    del tensors["model.diffusion_model.out.2.weight"]


def add_encoder(tensors: Tensors) -> None:
    tensors["text_encoders.gemma.norm.weight"] = torch.ones(1)


def add_second_vae(tensors: Tensors) -> None:
    tensors["vae.encoder.conv_in.weight"] = torch.ones(1)


def drop_denoiser(tensors: Tensors) -> None:
    for name in [name for name in tensors if name.startswith("model.")]:
        del tensors[name]


MISFITS: dict[Callable[[Tensors], None], str] = {
    drop_weight: r"holds as model\.diffusion_model\.\* is not the unet of .*'conv_out\.weight' missing",
    add_encoder: r"holds a text encoder under names that are not read, such as 'text_encoders\.gemma\.norm\.weight'",
    add_second_vae: r"holds as vae\.\* is not the|holds vae\.\*, but",
    drop_denoiser: r"holds no denoiser: no name begins with 'model\.diffusion_model\.'",
}


@pytest.mark.parametrize("change", MISFITS, ids=lambda change: change.__name__)
def test_what_does_not_fit_is_refused(
    change: Callable[[Tensors], None], sdxl: tuple[Path, Path], tmp_path: Path
) -> None:
    base, file = sdxl
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, tmp_path / "file.safetensors")
    with pytest.raises(UserError, match=MISFITS[change]):
        edgepress.convert(tmp_path / "file.safetensors", base=base, output=tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache, and the user's, both empty; there is no network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "hub"


def write_snapshot(hub: Path, model: str, folder: Path) -> None:
    """Writes a downloaded model into the Hub's cache."""
    entry = hub / f"models--{model.replace('/', '--')}"
    shutil.copytree(folder, entry / "snapshots" / "0123")
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text("0123")


def test_a_file_as_a_model_gets_a_folder_of_the_pipeline_that_diffusers_infers(hub: Path, tmp_path: Path) -> None:
    write_sd15(tmp_path / "original")
    file = write_checkpoint(tmp_path / "model.safetensors", group_sd15(tmp_path / "original"), **POSITIONS)
    write_snapshot(hub, "stable-diffusion-v1-5/stable-diffusion-v1-5", tmp_path / "original")
    folder = resolve_pipeline(str(file))
    for name in ("unet", "vae", "text_encoder"):
        stored, expected = (read_component(path / name) for path in (folder, tmp_path / "original"))
        assert stored.keys() == expected.keys()
        assert all(torch.equal(stored[key], expected[key]) for key in expected)
    assert type(DiffusionPipeline.from_pretrained(folder)).__name__ == "StableDiffusionPipeline"
    shutil.rmtree(hub)
    assert resolve_pipeline(str(file)) == folder  # found, not made again
    write_checkpoint(file, group_sd15(tmp_path / "original"))  # another file
    with pytest.raises(UserError, match="cannot be had"):
        resolve_pipeline(str(file))


@pytest.mark.usefixtures("hub")
def test_a_file_as_a_model_whose_pipeline_cannot_be_had_names_the_command(sdxl: tuple[Path, Path]) -> None:
    with pytest.raises(UserError, match=r"'edgepress convert .*model\.safetensors --base MODEL --output FOLDER'"):
        resolve_pipeline(str(sdxl[1]))


@pytest.mark.usefixtures("hub")
def test_a_file_that_diffusers_does_not_know_is_no_model(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2, 2)}, tmp_path / "adapter.safetensors")
    with pytest.raises(UserError, match="holds no model that diffusers knows by its tensors"):
        resolve_pipeline(str(tmp_path / "adapter.safetensors"))
    assert not (tmp_path / "cache").exists()
