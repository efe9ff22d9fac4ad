"""The benchmark of session options: what docs/onnx.md warns of, and that edgepress's own options avoid it."""

from __future__ import annotations

import pytest
from onnx import checker

from edgepress.benchmarks.onnx.session_options import ARRANGEMENTS, LEVELS, measure_error
from edgepress.runtime.onnx.sessions import ACCURACY_LEVEL_ENTRY, list_session_entries

HALF = "`DequantizeLinear`, float16 (recipe `orin`)"


def test_default_options_compute_zeros_at_the_levels_that_the_documentation_names() -> None:
    """A version of ONNX Runtime that no longer does this makes the warning outdated."""
    assert [level for level in LEVELS if measure_error(ARRANGEMENTS[HALF](), level, None) is None] == [
        "EXTENDED",
        "LAYOUT",
    ]


@pytest.mark.parametrize("title", ARRANGEMENTS)
def test_the_options_of_edgepress_are_right_at_every_level(title: str) -> None:
    model = ARRANGEMENTS[title]()
    if "MatMulNBits" not in title:
        checker.check_model(model)
    entry = list_session_entries(model.SerializeToString())[ACCURACY_LEVEL_ENTRY]
    limit = 1e-2 if "level 4" in title else 1e-3
    errors = [measure_error(model, level, entry) for level in LEVELS]
    assert max(1.0 if error is None else error for error in errors) < limit
