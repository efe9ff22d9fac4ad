"""The demo's graphs, exported once."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact with the demo's graphs in float32; tests must not change it."""
    from edgepress.export.onnx.export import export
    from edgepress.recipe import Export
    from edgepress.sources import DEMO

    folder = tmp_path_factory.mktemp("exported") / "artifact"
    export(DEMO, folder, Export(precision="fp32"), check=False)
    return folder
