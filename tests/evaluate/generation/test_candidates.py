from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from edgepress.common.errors import UserError
from edgepress.evaluate.generation.candidates import ImageSource, detect_image_source, parse_candidates


def pipeline(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    return folder


def graphs(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "pipeline.json").write_text("{}")
    return folder


def pictures(folder: Path) -> Path:
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    return folder


def test_a_folder_says_what_it_is(tmp_path: Path) -> None:
    assert detect_image_source(pipeline(tmp_path / "a")).kind == "diffusers"
    assert detect_image_source(graphs(tmp_path / "b")).kind == "onnx"
    assert detect_image_source(graphs(tmp_path / "rknn")).kind == "rknn"
    assert detect_image_source(pictures(tmp_path / "c")).kind == "images"


def test_a_folder_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "file", tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"no pressed pipeline in .*, nor graphs or pictures; run `edgepress"):
            detect_image_source(folder)


def test_an_artifact_stands_for_all_that_it_holds(tmp_path: Path) -> None:
    model, onnx = pipeline(tmp_path / "orin" / "model"), graphs(tmp_path / "orin" / "onnx")
    both = {"orin-model": ImageSource("diffusers", model), "orin-onnx": ImageSource("onnx", onnx)}
    assert parse_candidates([str(tmp_path / "orin")]) == parse_candidates([str(model), str(onnx)]) == both
    graphs(tmp_path / "orin" / "rknn")
    assert list(parse_candidates([f"int4={tmp_path / 'orin'}"])) == ["int4-model", "int4-onnx", "int4-rknn"]


def test_names_dtypes_and_signs_in_paths(tmp_path: Path) -> None:
    folder = pipeline(tmp_path / "x=1" / "a@b")
    given = [str(folder), f"bf16={folder}@bfloat16", f"other={folder}"]
    found = parse_candidates(given)
    assert found == {
        "a@b": ImageSource("diffusers", folder),
        "bf16": ImageSource("diffusers", folder, "bfloat16"),
        "other": ImageSource("diffusers", folder),
    }


def test_what_cannot_be_told_apart_or_computed_is_refused(tmp_path: Path) -> None:
    one, other = pipeline(tmp_path / "a" / "x"), pipeline(tmp_path / "b" / "x")
    with pytest.raises(UserError, match="Two candidates are called 'x'; give names"):
        parse_candidates([str(one), str(other)])
    with pytest.raises(UserError, match="computes in no dtype of ours; leave @float32 out"):
        parse_candidates([f"{graphs(tmp_path / 'g')}@float32"])
    with pytest.raises(UserError, match="empty --candidate"):
        parse_candidates([""])
