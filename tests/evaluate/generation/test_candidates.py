from __future__ import annotations

from pathlib import Path

import pytest
from helpers.published_artifact import publish_onnx, write_published_artifact
from PIL import Image

from edgepress.common.errors import UserError
from edgepress.evaluate.generation.candidates import ImageSource, detect_image_source, parse_candidates, read_origin
from edgepress.pipelines.component_files import ComponentFile
from edgepress.storage.manifest import read_manifest
from edgepress.storage.weight_export import WeightExport, write_weight_export


def make_pipeline(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    return folder


def make_export(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "pipeline.json").touch()
    return folder


def make_images(folder: Path) -> Path:
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    return folder


def test_kind_is_detected_from_folder_contents(tmp_path: Path) -> None:
    assert detect_image_source(make_pipeline(tmp_path / "a")).kind == "diffusers"
    assert detect_image_source(make_export(tmp_path / "b")).kind == "onnx"
    assert detect_image_source(make_export(tmp_path / "rknn")).kind == "rknn"
    assert detect_image_source(make_images(tmp_path / "c")).kind == "images"


def test_folder_without_pipeline_export_or_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder, reason in ((tmp_path, "is a folder with file"), (tmp_path / "file", "is a file")):
        with pytest.raises(UserError, match=rf"{reason}\. Give a pipeline, an export, or a folder of images\."):
            detect_image_source(folder)
    with pytest.raises(UserError, match=r"nowhere does not exist\. Run 'edgepress quantize' first"):
        detect_image_source(tmp_path / "nowhere")


def test_an_artifact_where_one_source_is_needed_is_named(tmp_path: Path) -> None:
    model = make_pipeline(tmp_path / "orin" / "model")
    make_export(tmp_path / "orin" / "onnx")
    with pytest.raises(UserError, match=rf"orin is an artifact with model/ and onnx/\. Give .*, such as {model}\."):
        detect_image_source(tmp_path / "orin")


def test_artifact_expands_to_all_its_exports(tmp_path: Path) -> None:
    model, onnx = make_pipeline(tmp_path / "orin" / "model"), make_export(tmp_path / "orin" / "onnx")
    expected = {"orin-model": ImageSource("diffusers", model), "orin-onnx": ImageSource("onnx", onnx)}
    assert parse_candidates([str(tmp_path / "orin")]) == parse_candidates([str(model), str(onnx)]) == expected
    make_export(tmp_path / "orin" / "rknn")
    assert list(parse_candidates([f"int4={tmp_path / 'orin'}"])) == ["int4-model", "int4-onnx", "int4-rknn"]


def test_names_and_dtypes_are_parsed_for_any_path(tmp_path: Path) -> None:
    folder = make_pipeline(tmp_path / "x=1" / "a@b")
    assert parse_candidates([str(folder), f"bf16={folder}@bfloat16", f"copy={folder}"]) == {
        "a@b": ImageSource("diffusers", folder),
        "bf16": ImageSource("diffusers", folder, "bfloat16"),
        "copy": ImageSource("diffusers", folder),
    }


@pytest.mark.parametrize("name", ["lr=1e-4", "x@y", "lr=1@float32"])
def test_a_folder_may_have_marks_of_a_spec_in_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = make_pipeline(Path(name))
    assert parse_candidates([name]) == {name: ImageSource("diffusers", folder)}
    assert parse_candidates([f"{name}@bfloat16"]) == {name: ImageSource("diffusers", folder, "bfloat16")}
    assert parse_candidates([f"int4={name}@float32"]) == {"int4": ImageSource("diffusers", folder, "float32")}


def test_ambiguous_and_invalid_candidates_are_refused(tmp_path: Path) -> None:
    folders = [make_pipeline(tmp_path / parent / "x") for parent in ("a", "b")]
    with pytest.raises(UserError, match=r"Two candidates are named 'x'\. Give them different names"):
        parse_candidates([str(folder) for folder in folders])
    with pytest.raises(UserError, match=rf"such as --candidate int4={folders[1]}\."):
        parse_candidates([f"x={folder}" for folder in folders])
    with pytest.raises(UserError, match=rf"cannot be named 'reference', .* such as --candidate int4={folders[0]}\."):
        parse_candidates([f"reference={folders[0]}"])
    with pytest.raises(UserError, match=r"@float32 applies only to diffusers pipelines; .* is not one"):
        parse_candidates([f"{make_export(tmp_path / 'g')}@float32"])
    with pytest.raises(UserError, match="--candidate is empty"):
        parse_candidates([""])


def test_an_export_of_another_pipeline_was_not_quantized_from_what_the_model_was(tmp_path: Path) -> None:
    artifact = write_published_artifact(tmp_path / "artifact")
    for source in (ImageSource("diffusers", artifact.model), ImageSource("onnx", artifact.onnx)):
        assert read_origin(source) == read_manifest(artifact.path)
    publish_onnx(artifact, model_sha256="")
    assert read_origin(ImageSource("onnx", artifact.onnx)) is None
    assert read_origin(ImageSource("onnx", tmp_path)) is None


# ---------------------------------------------------------------- single files and servers


def test_single_files_and_servers_are_recognized() -> None:
    candidates = parse_candidates(
        ["q4=transformer:a b/x.gguf", "transformer:y.safetensors,text_encoder:z.gguf@bfloat16", "http://host:80/"]
    )
    assert candidates == {
        "q4": ImageSource("diffusers", Path(), files=(ComponentFile("transformer", Path("a b/x.gguf")),)),
        "y": ImageSource(
            "diffusers",
            Path(),
            "bfloat16",
            files=(
                ComponentFile("transformer", Path("y.safetensors")),
                ComponentFile("text_encoder", Path("z.gguf")),
            ),
        ),
        "host:80": ImageSource("server", Path(), url="http://host:80"),
    }
    assert [source.place for source in candidates.values()] == ["a b/x.gguf", "y.safetensors,z.gguf", "http://host:80"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{}/x.gguf", r"Name the component that it replaces, such as --candidate x=transformer:.*x\.gguf"),
        (
            "q=transformer:{}/x.bin",
            r"x\.bin does not exist\. Give a folder, COMPONENT:FILE with a \.gguf or \.safetensors",
        ),
        (
            "q=transformer:{0}/y.bin,vae:{0}/x.gguf",
            r"y\.bin,vae:.*x\.gguf does not exist\. Give a folder, COMPONENT:FILE",
        ),
        ("transformer:{}", r"is a folder with x\.gguf\. Give a \.gguf or \.safetensors file of a component"),
        ("http:host", r"^--candidate http:host does not exist\. Give a folder, COMPONENT:FILE .* address of a server"),
        ("transformer:a.gguf,transformer:b.gguf", "replaces a component twice"),
    ],
)
def test_a_file_that_cannot_replace_a_component_is_refused(spec: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").touch()
    with pytest.raises(UserError, match=message):
        parse_candidates([spec.format(tmp_path)])


@pytest.mark.parametrize(
    ("export", "files", "place", "message"),
    [
        ("gguf", ("text_encoder.gguf", "transformer.gguf"), ".",
         "Give --candidate text_encoder:{0}/text_encoder.gguf,transformer:{0}/transformer.gguf."),
        ("comfyui", ("transformer.safetensors",), ".", "Give --candidate transformer:{0}/transformer.safetensors."),
        ("compressed-tensors", ("text_encoder/model.safetensors",), ".", "Give {1}/model."),
        ("compressed-tensors", ("text_encoder/model.safetensors",), "text_encoder", "Give {1}/model."),
    ],
)  # fmt: skip
def test_weights_for_another_program_come_with_the_right_advice(
    export: str, files: tuple[str, ...], place: str, message: str, tmp_path: Path
) -> None:
    folder = tmp_path / export
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).touch()
    content = WeightExport(format=export, family="APipeline", model_sha256="", components={}, versions={})
    write_weight_export(content, folder)
    with pytest.raises(UserError) as raised:
        parse_candidates([str(folder / place)])
    assert str(raised.value).endswith(message.format(folder, tmp_path))


def test_a_single_file_is_that_of_the_component_that_it_is_named_after(tmp_path: Path) -> None:
    (tmp_path / "text_encoder_2.gguf").touch()
    with pytest.raises(UserError, match=r"--candidate text_encoder_2=text_encoder_2:.*text_encoder_2\.gguf"):
        parse_candidates([str(tmp_path / "text_encoder_2.gguf")])


@pytest.mark.parametrize("url", ["http://", "http://host:99999", "https://host:x", "http://[::1", "http://host:0"])
def test_an_impossible_address_is_refused(url: str) -> None:
    with pytest.raises(UserError, match=r"is no address of a server\. Give one such as http://127\.0\.0\.1:8000"):
        parse_candidates([url])


@pytest.mark.parametrize("spec", ["ftp://host/x", "file:///x", "s3://bucket/x", "x=hf://owner/name", "http:/host"])
def test_an_address_that_is_no_servers_is_named_as_given(spec: str) -> None:
    with pytest.raises(
        UserError, match=f"^{spec.removeprefix('x=')} is an address, and only files and folders of this"
    ):
        parse_candidates([spec])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "{}@int8",
            r"@int8 does not exist\. .* @float32 or @bfloat16 may follow a pipeline; .* exists without @int8\.$",
        ),
        ("{}@", r"@ does not exist\. .* exists without @\.$"),
        ("{}/nowhere@int8", r"nowhere@int8 does not exist\. .* @float32 or @bfloat16 may follow a pipeline\.$"),
    ],
)
def test_another_dtype_is_no_part_of_the_folder(spec: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        parse_candidates([spec.format(tmp_path)])


def test_files_and_servers_are_of_no_artifact() -> None:
    for spec in ("transformer:x.gguf", "http://host"):
        (source,) = parse_candidates([spec]).values()
        assert read_origin(source) is None
