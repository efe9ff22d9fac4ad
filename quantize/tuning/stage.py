"""The stage `tune`: trains every quantized denoiser with every scheme of the recipe, one after another.

Nothing that it stores depends on the number of threads, on the memory limit or on the clock.
"""

from __future__ import annotations

import logging
import shutil

from ...recipes.schema import PRIMARY
from ...storage.manifest import TuningRecord
from ..plan import ComponentPlan, QuantizationPlan
from ..preflight import require_tuned_component
from ..workspace import Workspace, read_metadata
from .blocks import tune_blocks
from .budget import AUTO_MINUTES
from .context import TuningContext, count_parameters
from .end_to_end import tune_whole

logger = logging.getLogger(__name__)

MAX_PARAMETERS = 5 * 10**7  # of a denoiser that is tuned as a whole: about 57 bytes for each with two threads


def run_tuning(context: TuningContext) -> None:
    """Tunes what is not tuned yet."""
    for component in list_tuned_components(context.plan):
        files = {scheme: context.workspace.tuned_file(component.name, scheme) for scheme in context.schemes}
        missing = {scheme: file for scheme, file in files.items() if not file.exists()}
        if not missing:
            continue
        if is_small(component):
            is_tuned = tune_whole(context, component, missing)
        elif is_tuned := context.plan.settings.tune != "auto":
            tune_blocks(context, component, missing)
        if not is_tuned:
            logger.warning(
                "%s is not tuned: it would take more than %.0f minutes. --tune MINUTES tunes it for that long.",
                component.name,
                AUTO_MINUTES,
            )
        shutil.rmtree(context.samples_folder(component), ignore_errors=True)


def is_small(component: ComponentPlan) -> bool:
    """Whether a denoiser is tuned as a whole; others are tuned block by block."""
    return count_parameters(component) <= MAX_PARAMETERS


def check_tuning(plan: QuantizationPlan) -> None:
    """Checks that there is something to tune.

    Raises:
        UserError: The recipe gives minutes, and no denoiser is quantized.
    """
    require_tuned_component(plan.settings, bool(list_tuned_components(plan)))


def list_tuned_components(plan: QuantizationPlan) -> list[ComponentPlan]:
    """Lists the components that tuning trains: the quantized denoisers."""
    return [part for part in plan.components if part.name in plan.family.denoisers and part.blocks]


def read_tuning(plan: QuantizationPlan, workspace: Workspace) -> dict[str, dict[str, TuningRecord]]:
    """Reads how components were tuned, by component and scheme."""
    records: dict[str, dict[str, TuningRecord]] = {}
    for component in list_tuned_components(plan):
        for scheme in (PRIMARY, *plan.settings.extra_schemes):
            file = workspace.tuned_file(component.name, scheme)
            if file.exists():
                records.setdefault(component.name, {})[scheme] = TuningRecord(**read_metadata(file))
    return records
