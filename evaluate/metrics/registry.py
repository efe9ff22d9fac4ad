"""Finds the metrics: every module of this package that defines one."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from ...common.errors import UserError
from ...common.suggest import suggest_name
from .. import metrics as package
from .base import Metric, MetricSettings, UnavailableMetric

SUPPORT_MODULES = ("base", "registry")  # modules of the package that define no metric


class MetricSet(NamedTuple):
    """The metrics of an evaluation.

    Attributes:
        metrics: Metrics that can be computed.
        unavailable: Metrics that cannot, with the reason.
    """

    metrics: list[Metric]
    unavailable: list[UnavailableMetric]


def check_metric_names(selected: Sequence[str]) -> list[str]:
    """Returns the names of all metrics, sorted.

    Raises:
        UserError: A selected one is none of them.
    """
    names = sorted(info.name for info in pkgutil.iter_modules(package.__path__) if info.name not in SUPPORT_MODULES)
    for name in selected:
        if name not in names:
            raise UserError(f"Unknown metric {name!r}: {suggest_name(name, names)}")
    return names


def load_metrics(settings: MetricSettings | None = None, selected: Sequence[str] = ()) -> MetricSet:
    """Creates the metrics, sorted by name.

    Args:
        settings: Settings of the metrics. Default: without weights for CLIP and LPIPS.
        selected: Names of the metrics to create; all if empty.

    Raises:
        UserError: A selected metric does not exist or is not available.
        ValueError: Two scores have the same name.
    """
    names = check_metric_names(selected)
    modules = [import_module(f"{package.__name__}.{name}") for name in names if not selected or name in selected]
    created: list[Metric | UnavailableMetric] = [
        module.create_metric(settings or MetricSettings()) for module in modules
    ]
    scores = [score.name for metric in created for score in metric.scores]
    if len(scores) != len(set(scores)):
        raise ValueError(f"Two scores have the same name: {', '.join(sorted(scores))}")
    unavailable = [metric for metric in created if isinstance(metric, UnavailableMetric)]
    if selected and unavailable:
        reason = unavailable[0].reason
        raise UserError(f"The metric {unavailable[0].name!r} is not available: {reason}. Otherwise leave it out.")
    return MetricSet([metric for metric in created if not isinstance(metric, UnavailableMetric)], unavailable)
