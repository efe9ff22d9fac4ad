"""What a metric is, and how the ones in `metrics/` are found: a new file there is all that a new metric needs.

A file has `make(settings)`, which gives its metric, or says why it cannot be measured here. A metric may look at the
prompt's text, language and lines; its numbers are kept by these, by the pictures and by its version. Metrics are
measured by several threads at once.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from ...common.errors import UserError
from ...common.suggest import suggest_name
from .base import Metric, MetricSettings, UnavailableMetric

NO_METRICS = {"base", "registry"}  # of the folder's files


class MetricSet(NamedTuple):
    metrics: list[Metric]
    unavailable: list[UnavailableMetric]


def load_metrics(settings: MetricSettings = MetricSettings(), selected: Sequence[str] = ()) -> MetricSet:
    """The metrics of the folder `metrics/`, by file name: all of them, or those that are asked for by name.

    Raises:
        UserError: a metric that is asked for is not known, or cannot be measured.
        ValueError: two scores bear the same name.
    """
    from .. import metrics

    names = sorted(module.name for module in pkgutil.iter_modules(metrics.__path__) if module.name not in NO_METRICS)
    for name in selected:
        if name not in names:
            raise UserError(f"There is no metric {name!r}; {suggest_name(name, names)}")
    wanted = [name for name in names if not selected or name in selected]
    made: list[Metric | UnavailableMetric] = [
        import_module(f"{metrics.__name__}.{name}").make(settings) for name in wanted
    ]
    scores = [score.name for metric in made for score in metric.scores]
    if len(scores) != len(set(scores)):
        raise ValueError(f"two scores bear the same name: {', '.join(sorted(scores))}")
    unavailable = [metric for metric in made if isinstance(metric, UnavailableMetric)]
    if selected and unavailable:
        raise UserError(f"The metric {unavailable[0].name!r} cannot be measured: {unavailable[0].reason}.")
    return MetricSet([metric for metric in made if not isinstance(metric, UnavailableMetric)], unavailable)
