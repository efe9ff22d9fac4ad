"""What an export is estimated to take on the disk, compared with what exports took."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.export.onnx.preflight import check_inputs
from edgepress.export.onnx.prepare import GRAPH_BYTES, ExportPlan, plan_export
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.recipes.schema import ExportSettings

MARGIN = 1.1  # times what the weights take


def assert_fits(plan: ExportPlan, folder: Path) -> None:
    """An estimate is never below what the folder takes, and above it by no more than the margin and small files."""
    real = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    estimate = plan.estimate_bytes()
    assert real <= estimate <= MARGIN * real + len(plan.source.family.graphs) * GRAPH_BYTES


@pytest.mark.slow
def test_the_estimate_of_the_demo_is_close_to_its_export(exported: Path, tmp_path: Path) -> None:
    """All components in float32, without the VAE's encoder."""
    plan = plan_export(check_inputs(DEMO_PIPELINE, tmp_path / "artifact", ExportSettings(precision="fp32"), []))
    assert_fits(plan, exported / "onnx")


@pytest.mark.slow
def test_extra_graphs_and_narrow_floats_count(tmp_path: Path) -> None:
    def estimate(**settings: object) -> int:
        return plan_export(
            check_inputs(DEMO_PIPELINE, tmp_path / "a", ExportSettings.model_validate(settings), [])
        ).estimate_bytes()

    whole = estimate(precision="fp32")
    encoder = DEMO_PIPELINE / "vae" / "diffusion_pytorch_model.safetensors"
    assert (
        0 < estimate(precision="fp32", extra_graphs=["vae_encoder"]) - whole - GRAPH_BYTES < 2 * encoder.stat().st_size
    )
    assert whole / 2 < estimate(precision="fp16") < 0.6 * whole


@pytest.mark.slow
def test_a_disk_without_room_for_all_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has room for half of it."""
    settings = ExportSettings(precision="fp32")
    half = plan_export(check_inputs(DEMO_PIPELINE, tmp_path / "a", settings, [])).estimate_bytes() // 2
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=half))
    with pytest.raises(UserError, match=r"needs at least \d\d\.\d MB, but its disk has \d\d\.\d MB free"):
        plan_export(check_inputs(DEMO_PIPELINE, tmp_path / "a", settings, []))
    assert not (tmp_path / "a").exists()
