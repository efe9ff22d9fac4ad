"""A component that has passed is not compared again until something changes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from helpers.tiny import edit_weights

from edgepress.common.errors import UserError
from edgepress.models.registry import get_family
from edgepress.pipelines import component_weights
from edgepress.pipelines.component_weights import check_described_component
from edgepress.pipelines.hub import read_pipeline_class
from edgepress.storage.checkpoint import Checkpoint


@pytest.fixture
def transformer(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A component that a test may break, with nothing remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shutil.copytree(tiny, tmp_path / "pipeline")
    return tmp_path / "pipeline" / "transformer"


def check(folder: Path) -> None:
    family = get_family(read_pipeline_class(folder.parent))
    component = next(part for part in family.components if part.name == folder.name)
    check_described_component(Checkpoint(folder), component)


def test_it_is_compared_once(transformer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check(transformer)
    monkeypatch.delattr(component_weights, "build_described_module")
    check(transformer)
    monkeypatch.setattr("edgepress.pipelines.passed_checks.version", lambda _: "another release")
    with pytest.raises(NameError):
        check(transformer)


def test_changed_weights_or_configs_are_compared_again(transformer: Path) -> None:
    check(transformer)
    config = transformer / "config.json"
    content = config.read_text("utf-8")
    config.write_text(json.dumps(json.loads(content) | {"dim": 96}), "utf-8")
    for _ in range(2):  # what failed is not remembered
        with pytest.raises(UserError):
            check(transformer)
    config.write_text(content, "utf-8")
    with edit_weights(transformer) as tensors:
        tensors.pop(next(iter(tensors)))
    with pytest.raises(UserError, match="is missing"):
        check(transformer)


def test_without_a_writable_cache_it_is_compared_again(transformer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(transformer / "config.json"))  # a file
    check(transformer)
    check(transformer)
