"""Checks that a scheduler can follow its pipeline's schedule, which diffusers finds out when it generates."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path

from ..common.articles import add_article
from ..common.errors import UserError
from ..models.base.family import Family
from ..storage.files import read_json_object
from ..storage.layout import MODEL_INDEX


def _read_parameters(class_name: str) -> Collection[str] | None:
    """The parameters of a scheduler's `set_timesteps`; None if diffusers has no such scheduler.

    The source of diffusers says them in a moment, where importing it takes seconds.
    """
    spec = find_spec("diffusers")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    for file in folder.glob("schedulers/scheduling_*.py"):
        text = file.read_text("utf-8")
        if f"class {class_name}(" in text:
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ClassDef) and node.name == class_name:
                    methods = {part.name: part.args for part in node.body if isinstance(part, ast.FunctionDef)}
                    if "set_timesteps" in methods:
                        arguments = methods["set_timesteps"]
                        return [argument.arg for argument in (*arguments.args, *arguments.kwonlyargs)]
    import diffusers  # the method is inherited, or the class is elsewhere

    scheduler = getattr(diffusers, class_name, None)
    return None if scheduler is None else inspect.signature(scheduler.set_timesteps).parameters


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
    class_name = str(read_json_object(folder / MODEL_INDEX)["scheduler"][1])
    parameters = _read_parameters(class_name)
    if parameters is None or "mu" not in parameters:
        reason = "diffusers does not have" if parameters is None else "takes no shift 'mu'"
        raise UserError(
            f"{folder / MODEL_INDEX} names the scheduler {class_name}, which {reason}: "
            f"{add_article(family.pipeline_class)} "
            "cannot generate images with it. Use its original scheduler."
        )
