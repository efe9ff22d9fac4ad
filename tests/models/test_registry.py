"""Looking families up by their pipeline class."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from edgepress import models
from edgepress.common.errors import UserError
from edgepress.models.registry import get_family, load_families


def test_family_is_looked_up_by_its_pipeline_class() -> None:
    family = get_family("ZImagePipeline")
    assert [component.name for component in family.components] == ["text_encoder", "transformer", "vae"]


def test_unknown_pipeline_class_names_the_supported_ones() -> None:
    with pytest.raises(UserError, match=r"'StableDiffusionPipeline' is not supported; supported: .*ZImagePipeline"):
        get_family("StableDiffusionPipeline")


def test_every_folder_with_a_family_is_found() -> None:
    folders = {path.parent.name for path in Path(models.__file__).parent.glob("*/family.py")} - {"base"}
    assert {"flux", "sd3", "sdxl", "z_image"} <= folders
    assert len(load_families()) == len(folders)


def add_family(root: Path, name: str, pipeline_class: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds a family to the package `models`, in a folder outside of it."""
    (root / name).mkdir(parents=True)
    (root / name / "__init__.py").write_text("")
    (root / name / "family.py").write_text(
        f"from edgepress.models.base.family import Family\nFAMILY = Family({pipeline_class!r}, denoiser='unet')\n"
    )
    for module in (name, f"{name}.family"):
        monkeypatch.setitem(sys.modules, f"{models.__name__}.{module}", None)  # so that it is removed afterwards
        del sys.modules[f"{models.__name__}.{module}"]
    monkeypatch.setattr(models, "__path__", [*models.__path__, *({str(root)} - set(models.__path__))])


def test_added_family_is_found_by_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_family(tmp_path, "added_family", "AddedPipeline", monkeypatch)
    assert load_families.__wrapped__()["AddedPipeline"].denoiser == "unet"


def test_two_families_of_one_pipeline_class_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_family(tmp_path, "first_family", "AddedPipeline", monkeypatch)
    add_family(tmp_path, "second_family", "AddedPipeline", monkeypatch)
    with pytest.raises(
        UserError, match=r"first_family\.family and .*second_family\.family both describe AddedPipeline"
    ):
        load_families.__wrapped__()


def test_registry_does_not_import_torch() -> None:
    script = (
        "import sys; from edgepress.models.registry import load_families; load_families()\n"
        "sys.exit(9 if {'torch', 'diffusers', 'transformers'} & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_lazily_named_objects_exist() -> None:
    """Families name graph modules, hosts, references and NPU specs by strings."""
    for family in load_families().values():
        graphs = [*family.graphs, *family.optional_graphs]
        names = [*(graph.module for graph in graphs), family.host, family.reference, family.npu]
        if family.npu:
            module, _, name = family.npu.partition(":")
            npu = getattr(importlib.import_module(module), name)
            names += [npu.host, *(graph.module for graph in npu.graphs)]
        for name in filter(None, names):
            module, _, attribute = name.partition(":")
            assert hasattr(importlib.import_module(module), attribute), name


def test_every_pipeline_class_is_in_diffusers() -> None:
    diffusers = importlib.import_module("diffusers")
    assert [name for name in load_families() if not hasattr(diffusers, name)] == []


def test_denoiser_is_a_component() -> None:
    for family in load_families().values():
        assert family.component(family.denoiser) is not None
