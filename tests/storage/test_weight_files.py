"""The files that hold a component's weights are those that diffusers and transformers load themselves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_vae import make_vae
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgepress.common.errors import UserError
from edgepress.storage.checkpoint import Checkpoint
from edgepress.storage.weight_files import find_stray_files, find_weight_folders, select_weight_files

STEMS = {"diffusers": "diffusion_pytorch_model", "transformers": "model"}
Tensors = dict[str, Tensor]


def make_text_encoder() -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return CLIPTextModel(
            CLIPTextConfig(
                vocab_size=32,
                hidden_size=32,
                intermediate_size=32,
                projection_dim=32,
                num_hidden_layers=1,
                num_attention_heads=2,
            )
        )


@pytest.fixture(params=STEMS)
def library(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def component(library: str, tmp_path: Path) -> Path:
    """The folder of a component, in a pipeline, with one weight file."""
    folder = tmp_path / "pipeline" / "component"
    model = make_vae() if library == "diffusers" else make_text_encoder()
    model.save_pretrained(folder)
    index = {"_class_name": "AnyPipeline", "component": [library, type(model).__name__]}
    (folder.parent / "model_index.json").write_text(json.dumps(index))
    return folder


def load_with_library(library: str, folder: Path, variant: str | None = None) -> Tensors:
    """The weights as the library itself loads them."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel

    cls: Any = AutoencoderKL if library == "diffusers" else CLIPTextModel
    model: nn.Module = cls.from_pretrained(folder, variant=variant, use_safetensors=True)
    return model.state_dict()


def load_with_checkpoint(folder: Path) -> Tensors:
    checkpoint = Checkpoint(folder, "text_model.")
    return {name: checkpoint.load_tensor(name) for name in checkpoint.names()}


def read_single(library: str, folder: Path) -> Tensors:
    return load_file(folder / f"{STEMS[library]}.safetensors")


def write_shards(library: str, folder: Path, tensors: Tensors, variant: str = "") -> None:
    """Writes two shards and their index by hand."""
    names, dot = sorted(tensors), f".{variant}" if variant else ""
    stem = f"{STEMS[library]}{dot}"
    parts = {f"{stem}-{number:05d}-of-00002.safetensors": names[number - 1 :: 2] for number in (1, 2)}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
    weight_map = {name: file for file, part in parts.items() for name in part}
    index = folder / f"{STEMS[library]}.safetensors.index{dot}.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def keep_single(library: str, folder: Path) -> None:
    """Leaves the component as it is."""


def shard(library: str, folder: Path) -> None:
    write_shards(library, folder, read_single(library, folder))
    (folder / f"{STEMS[library]}.safetensors").unlink()


def add_outdated_shards(library: str, folder: Path) -> None:
    tensors = read_single(library, folder)
    write_shards(library, folder, {name: tensor * 2 for name, tensor in tensors.items()})


def add_backup(library: str, folder: Path) -> None:
    tensors = {name: tensor * 3 for name, tensor in read_single(library, folder).items()}
    for name in ("a_backup", f"{STEMS[library]}_backup", f"{STEMS[library]}-backup", "z"):
        save_file(tensors, folder / f"{name}.safetensors", {"format": "pt"})


def add_ema(library: str, folder: Path) -> None:
    tensors = {name: tensor * 4 for name, tensor in read_single(library, folder).items()}
    save_file(tensors, folder / f"{STEMS[library]}.ema.safetensors", {"format": "pt"})


def add_variant(library: str, folder: Path) -> None:
    tensors = {name: tensor * 5 for name, tensor in read_single(library, folder).items()}
    save_file(tensors, folder / f"{STEMS[library]}.fp16.safetensors", {"format": "pt"})
    write_shards(library, folder, tensors, "fp16")


def keep_variant(library: str, folder: Path) -> None:
    plain = folder / f"{STEMS[library]}.safetensors"
    plain.rename(folder / f"{STEMS[library]}.fp16.safetensors")


def keep_sharded_variant(library: str, folder: Path) -> None:
    tensors = read_single(library, folder)
    (folder / f"{STEMS[library]}.safetensors").unlink()
    write_shards(library, folder, tensors, "fp16")


def keep_outdated_sharded_variant(library: str, folder: Path) -> None:
    keep_variant(library, folder)
    tensors = load_file(folder / f"{STEMS[library]}.fp16.safetensors")
    write_shards(library, folder, {name: tensor * 6 for name, tensor in tensors.items()}, "fp16")


LAYOUTS: dict[Callable[[str, Path], None], str] = {  # with the variant to name to the library
    keep_single: "",
    shard: "",
    add_outdated_shards: "",
    add_backup: "",
    add_ema: "",
    add_variant: "",
    keep_variant: "fp16",
    keep_sharded_variant: "fp16",
    keep_outdated_sharded_variant: "fp16",
}


@pytest.mark.slow
@pytest.mark.parametrize("arrange", LAYOUTS, ids=lambda arrange: arrange.__name__)
def test_what_is_read_is_what_the_library_loads(
    arrange: Callable[[str, Path], None], library: str, component: Path
) -> None:
    arrange(library, component)
    expected = load_with_library(library, component, LAYOUTS[arrange] or None)
    tensors = load_with_checkpoint(component)
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())
    assert select_weight_files(component).variant == LAYOUTS[arrange]


def test_further_files_are_strays(library: str, component: Path) -> None:
    for arrange in (add_backup, add_ema):
        arrange(library, component)
    names = {path.name for path in find_stray_files(component.parent)}
    stem = STEMS[library]
    backups = ("a_backup", f"{stem}_backup", f"{stem}-backup", "z", f"{stem}.ema")
    assert names == {f"{name}.safetensors" for name in backups}


def test_what_no_component_loads_is_stray(component: Path) -> None:
    """The whole model in one file at the top, weights of other runtimes, and a folder that nothing names."""
    pipeline = component.parent
    shutil.copytree(component, pipeline / "prior")
    names = ("prompts/a.jsonl", "README.md", "whole.safetensors", "component/model.onnx", "onnx/unet/model.onnx")
    for name in names:
        (pipeline / name).parent.mkdir(parents=True, exist_ok=True)
        (pipeline / name).write_bytes(b"1")
    strays = {path.relative_to(pipeline).as_posix() for path in find_stray_files(pipeline)}
    unused = {f"prior/{path.name}" for path in component.iterdir() if path.suffix != ".onnx"}
    assert strays == {*names[2:]} | unused


def test_solutions_of_a_quantized_model_are_no_strays(component: Path) -> None:
    for scheme in ("qdq", "w8a8"):
        shutil.copytree(component, component.parent / "solutions" / scheme / component.name)
    assert find_stray_files(component.parent) == []


def test_shards_listed_by_no_index_that_is_used_are_strays(library: str, component: Path) -> None:
    add_outdated_shards(library, component)
    strays = {path.name for path in find_stray_files(component.parent)}
    single = f"{STEMS[library]}.safetensors"
    assert strays == {single} if library == "diffusers" else len(strays) == 3 and single not in strays


@pytest.mark.slow
def test_the_variant_is_that_of_the_pipeline(library: str, component: Path) -> None:
    """As with `from_pretrained(pipeline, variant=...)`, plain weights do not count where there is the variant."""
    add_variant(library, component)
    second = component.parent / "second"
    shutil.copytree(component, second)
    index = component.parent / "model_index.json"
    content = json.loads(index.read_text())
    index.write_text(json.dumps(content | {"second": content["component"]}))
    assert select_weight_files(component).variant == ""
    (second / f"{STEMS[library]}.safetensors").unlink()
    assert select_weight_files(component).variant == select_weight_files(second).variant == "fp16"
    expected = load_with_library(library, component, "fp16")
    tensors = load_with_checkpoint(component)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())


def test_several_variants_are_refused(library: str, component: Path) -> None:
    add_ema(library, component)
    keep_variant(library, component)
    with pytest.raises(UserError, match=r"several variants only \(ema, fp16\)\. Keep the files of one variant"):
        select_weight_files(component)


def test_weights_of_another_name_are_refused(library: str, component: Path) -> None:
    stem = STEMS[library]
    (component / f"{stem}.safetensors").rename(component / "weights.safetensors")
    message = rf"has no {stem}\.safetensors .*which {library} loads, only weights\.safetensors\. Rename the file"
    with pytest.raises(UserError, match=message):
        select_weight_files(component)


@pytest.mark.parametrize("name", ["model-Q4_K.gguf", "flax_model.msgpack", "model.ONNX"])
def test_weights_of_another_format_are_named(name: str, library: str, component: Path) -> None:
    (component / f"{STEMS[library]}.safetensors").rename(component / name)
    with pytest.raises(UserError, match=rf"no \.safetensors file, only {name}, which is not read\. Use"):
        select_weight_files(component)


def test_an_index_may_name_files_of_the_current_folder(library: str, component: Path) -> None:
    expected = load_with_checkpoint(component)
    shard(library, component)
    (index,) = component.glob("*.index.json")
    content = json.loads(index.read_text())
    content["weight_map"] = {name: f"./{file}" for name, file in content["weight_map"].items()}
    index.write_text(json.dumps(content))
    assert load_with_checkpoint(component).keys() == expected.keys()


def test_a_link_to_nothing_is_named(library: str, component: Path) -> None:
    file = component / f"{STEMS[library]}.safetensors"
    file.unlink()
    file.symlink_to("../blobs/1234")
    with pytest.raises(UserError, match=rf"{file.name} is a link to \.\./blobs/1234, which does not exist"):
        select_weight_files(component)


@pytest.mark.slow
def test_the_index_decides_about_a_tensor_in_two_shards(library: str, component: Path) -> None:
    expected = load_with_checkpoint(component)
    shard(library, component)
    files = sorted(component.glob("*.safetensors"))
    for file, further in (files, files[::-1]):
        outdated = {name: tensor * 2 for name, tensor in load_file(further).items()}
        save_file(outdated | load_file(file), file.with_suffix(".new"), {"format": "pt"})
    for file in files:
        file.with_suffix(".new").rename(file)
    tensors = load_with_checkpoint(component)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())
    checkpoint = Checkpoint(component)
    assert len(checkpoint.doubles) == len(expected)
    assert not checkpoint.is_plain


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"w": "../other/model.safetensors"}, "in another folder"),
        ({"w": "/etc/model.safetensors"}, "in another folder"),
        ({"w": "model\n.safetensors"}, r"model\\n\.safetensors is missing"),
        ({"w": f"{'m' * 300}.safetensors"}, r"index\.json is corrupt: no file can be named 'm{60}…'"),
        ({}, "lists no tensors"),
        ({"w": ["model.safetensors"]}, "does not name a file for each tensor"),
        ({"w": "absent.safetensors"}, r"absent\.safetensors is missing"),
    ],
)
def test_an_index_is_checked(weight_map: object, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UserError, match=message):
        select_weight_files(tmp_path)


def test_an_index_that_names_the_wrong_shard_is_refused(tmp_path: Path) -> None:
    save_file({"w": torch.ones(1)}, tmp_path / "a.safetensors")
    save_file({"x": torch.ones(1)}, tmp_path / "b.safetensors")
    index = {"weight_map": {"w": "b.safetensors", "x": "a.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"says that b\.safetensors has the tensor 'w', but it has not"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("library", ["transformers"], indirect=True)
def test_files_that_transformers_would_add_are_refused(component: Path) -> None:
    (component / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"adapter_config\.json: transformers would add a LoRA"):
        select_weight_files(component)
    (component / "adapter_config.json").unlink()
    config = json.loads((component / "config.json").read_text())
    (component / "config.json").write_text(json.dumps(config | {"transformers_weights": "x.safetensors"}))
    with pytest.raises(UserError, match="transformers_weights"):
        select_weight_files(component)


def test_folders_that_model_index_does_not_list_are_no_components(component: Path) -> None:
    shutil.copytree(component, component.with_name("component_backup"))
    assert find_weight_folders(component.parent) == [component]


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").symlink_to("model.safetensors")
    with pytest.raises(UserError, match=r"is a link to model\.safetensors, which does not exist\. Download"):
        select_weight_files(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(UserError, match=r"model\.safetensors is a folder, pipe or device instead of a file\. Download"):
        select_weight_files(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "model.safetensors.part",
            r"safetensors\.part is a download that has not been finished\. Download the model again",
        ),
        ("model.safetensors.crdownload", "is a download that has not been finished"),
        ("model.safetensors.incomplete", "is a download that has not been finished"),
        ("MODEL.SAFETENSORS", r"is not found by its name\. Rename it to model\.safetensors"),
        ("model.Safetensors", r"is not found by its name\. Rename it to model\.safetensors"),
    ],
)
def test_names_that_are_nearly_right_are_explained(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    (tmp_path / "other.bin").touch()
    with pytest.raises(UserError, match=message):
        select_weight_files(tmp_path)
