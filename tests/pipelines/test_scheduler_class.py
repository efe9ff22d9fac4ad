"""A scheduler that cannot follow its pipeline's schedule is named before any work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgepress.common.errors import UserError
from edgepress.models.registry import get_family
from edgepress.pipelines.scheduler_class import check_scheduler_class


def check(folder: Path, scheduler: str, pipeline_class: str = "ZImagePipeline") -> None:
    (folder / "model_index.json").write_text(json.dumps({"scheduler": ["diffusers", scheduler]}))
    check_scheduler_class(folder, get_family(pipeline_class))


@pytest.mark.parametrize(
    ("scheduler", "reason"),
    [("EulerDiscreteScheduler", "takes no shift 'mu'"), ("NewScheduler", "diffusers does not have")],
)
def test_others_are_refused(scheduler: str, reason: str, tmp_path: Path) -> None:
    message = rf"model_index\.json names the scheduler {scheduler}, which {reason}: a ZImagePipeline .*Use its original"
    with pytest.raises(UserError, match=message):
        check(tmp_path, scheduler)


@pytest.mark.parametrize("scheduler", ["FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler"])
def test_those_that_take_a_shift_pass(scheduler: str, tmp_path: Path) -> None:
    check(tmp_path, scheduler)


def test_pipelines_that_pass_none_may_have_any(tmp_path: Path) -> None:
    check(tmp_path, "EulerDiscreteScheduler", "StableDiffusionXLPipeline")
