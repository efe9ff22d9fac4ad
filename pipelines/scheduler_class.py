"""Checks that a scheduler can follow its pipeline's schedule, which diffusers finds out when it generates."""

from __future__ import annotations

import inspect
from pathlib import Path

from ..common.articles import add_article
from ..common.errors import UserError
from ..models.base.family import Family
from ..storage.files import read_json_object
from ..storage.layout import MODEL_INDEX


def check_scheduler_class(folder: Path, family: Family) -> None:
    """Checks that the scheduler takes the shift `mu`, if the pipelines of the family always pass one.

    Args:
        folder: The pipeline's folder.
        family: Its family.

    Raises:
        UserError: It does not, or diffusers has no such scheduler.
    """
    if not family.passes_mu:
        return
    import diffusers

    class_name = read_json_object(folder / MODEL_INDEX)["scheduler"][1]
    scheduler = getattr(diffusers, class_name, None)
    if scheduler is None or "mu" not in inspect.signature(scheduler.set_timesteps).parameters:
        reason = "diffusers does not have" if scheduler is None else "takes no shift 'mu'"
        raise UserError(
            f"{folder / MODEL_INDEX} names the scheduler {class_name}, which {reason}: "
            f"{add_article(family.pipeline_class)} "
            "cannot generate images with it. Use its original scheduler."
        )
