from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from edgepress.common.errors import UserError
from edgepress.pipelines.quantization_packages import PACKAGES, check_quantization_packages, read_quant_methods


def write_pipeline(folder: Path, settings: Any, library: str = "diffusers") -> Path:
    """A pipeline with one component, as far as the checks look at it."""
    (folder / "part").mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "P", "part": [library, "C"]}))
    marker = {"_class_name": "C"} if library == "diffusers" else {"architectures": ["C"]}
    (folder / "part" / "config.json").write_text(json.dumps({**marker, "quantization_config": settings}))
    (folder / "part" / "model.safetensors").touch()
    return folder


@pytest.mark.parametrize("method", ["auto-round", "bitsandbytes", "quanto", "sdnq", "torchao"])
@pytest.mark.parametrize("library", ["diffusers", "transformers"])
def test_a_missing_package_is_named(method: str, library: str, tmp_path: Path) -> None:
    distributions = [package.distribution for package in PACKAGES[method]]
    if any(find_spec(package.module.partition(".")[0]) and "." not in package.module for package in PACKAGES[method]):
        pytest.skip(f"{distributions} is installed")
    pipeline = write_pipeline(tmp_path, {"quant_method": method}, library)
    with pytest.raises(
        UserError, match=rf"The part of .* is quantized with {method}, which needs the packages?"
    ) as error:
        check_quantization_packages(pipeline)
    assert str(error.value).endswith(f"Run: pip install {' '.join(distributions)}")


def test_a_folder_in_gguf_is_refused_with_how_to_give_the_file(tmp_path: Path) -> None:
    pipeline = write_pipeline(tmp_path, {"quant_method": "gguf"})
    with pytest.raises(UserError, match=r"which folders do not hold\. .* --candidate q4=part:FILE\.gguf'"):
        check_quantization_packages(pipeline)


@pytest.mark.slow
def test_a_method_that_a_library_does_not_know_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'no-such', which the installed diffusers cannot open"):
        check_quantization_packages(write_pipeline(tmp_path / "a", {"quant_method": "no-such"}))
    with pytest.raises(UserError, match="'no-such', which the installed transformers cannot open"):
        check_quantization_packages(write_pipeline(tmp_path / "b", {"quant_method": "no-such"}, "transformers"))


@pytest.mark.slow
@pytest.mark.parametrize("library", ["diffusers", "transformers"])
def test_the_own_layout_needs_no_package(library: str, tmp_path: Path) -> None:
    pipeline = write_pipeline(tmp_path, {"quant_method": "awq"}, library)
    check_quantization_packages(pipeline)
    assert read_quant_methods(pipeline) == {"part": "awq"}


def test_early_configs_of_bitsandbytes_are_recognized(tmp_path: Path) -> None:
    assert read_quant_methods(write_pipeline(tmp_path, {"load_in_4bit": True})) == {"part": "bitsandbytes"}


@pytest.mark.parametrize("settings", ["nf4", {"bits": 4}, {"quant_method": 4}])
def test_malformed_settings_are_named(settings: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"part/config\.json has a quantization_config"):
        read_quant_methods(write_pipeline(tmp_path, settings))
