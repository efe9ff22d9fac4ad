"""Packages that a class of diffusers needs are named before any work, and not by what fails without them."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.pipelines import required_packages
from edgepress.pipelines.families import find_family
from edgepress.pipelines.required_packages import check_required_packages
from edgepress.pipelines.tokenizer_loading import check_processors


def write_index(folder: Path, pipeline_class: str, **entries: list[str]) -> Path:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline_class} | entries))
    return folder


def uninstall(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a package look as if it were not installed."""
    monkeypatch.setattr(required_packages, "find_spec", lambda package: None if package == name else find_spec(package))


@pytest.mark.parametrize(
    ("pipeline_class", "package"),
    [
        ("Cosmos2TextToImagePipeline", "cosmos_guardrail"),
        ("OmniGenPipeline", "torchvision"),
        ("PRXPipeline", "ftfy"),
        ("PRXPixelPipeline", "ftfy"),
    ],
)
def test_a_package_whose_import_is_conditional_is_named(
    pipeline_class: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninstall(package, monkeypatch)
    message = rf"is an? {pipeline_class}, which needs the package '{package}', and that is not installed\. Install it"
    with pytest.raises(UserError, match=message):
        find_family(write_index(tmp_path, pipeline_class))


@pytest.mark.parametrize(
    "pipeline_class", ["PixArtSigmaPipeline", "SanaPipeline", "Kandinsky5T2IPipeline", "IFPipeline"]
)
def test_a_class_that_works_without_a_package_does_not_need_it(
    pipeline_class: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uninstall("ftfy", monkeypatch)
    check_required_packages(write_index(tmp_path, pipeline_class))


@pytest.mark.skipif(find_spec("sentencepiece") is not None, reason="diffusers has no placeholder then")
def test_the_package_of_a_placeholder_is_named_and_not_another_release_of_diffusers(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="is a KolorsPipeline, which needs the package 'sentencepiece', and that is not"
    ):
        find_family(write_index(tmp_path, "KolorsPipeline"))


@pytest.mark.skipif(find_spec("torchsde") is not None, reason="diffusers has no placeholder then")
def test_the_package_of_a_component_is_named(tmp_path: Path) -> None:
    index = write_index(tmp_path, "StableDiffusionPipeline", scheduler=["diffusers", "DPMSolverSDEScheduler"])
    with pytest.raises(UserError, match="needs the package 'torchsde' for its DPMSolverSDEScheduler"):
        check_required_packages(index)


def test_a_class_that_diffusers_does_not_have_is_left_to_others(tmp_path: Path) -> None:
    check_required_packages(write_index(tmp_path, "SuperImagePipeline", unet=["diffusers", "SuperUNet"]))


def test_a_processor_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    write_index(tmp_path, "Kandinsky5T2IPipeline", tokenizer=["transformers", "Qwen2_5_VLProcessor"])
    (tmp_path / "tokenizer").mkdir()
    with pytest.raises(UserError, match=r"tokenizer.*Qwen2_5_VLProcessor"):
        check_processors(tmp_path)
