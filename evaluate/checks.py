"""Checks a plan before any work: what can be known from folders, headers and arithmetic, for all sources."""

from __future__ import annotations

from ..common.errors import UserError
from ..storage.permissions import require_writable
from .generation.candidates import ImageSource
from .plan import EvaluationPlan


def check_plan(plan: EvaluationPlan) -> None:
    """Checks everything that can be checked without reading weights.

    Raises:
        UserError: There is nothing to compare, a folder cannot be written to, or a source cannot generate such images.
    """
    if not plan.prompts or plan.seeds < 1 or not plan.candidates:
        raise UserError("Nothing to compare. Give at least one prompt, one seed and one candidate.")
    require_writable(plan.output, "--output")
    if plan.history:
        require_writable(plan.history.parent, "--history")
    for source in (plan.reference, *plan.candidates.values()):
        _check_source(plan, source)


def _check_source(plan: EvaluationPlan, source: ImageSource) -> None:
    """Checks that a source can generate images with the plan's settings."""
    if plan.sampling and plan.sampling.guidance and source.kind in ("onnx", "rknn"):
        raise UserError(
            f"{source.folder}: exported graphs do not support guidance {plan.sampling.guidance:g}. Set "
            "evaluation.guidance to 0."
        )
