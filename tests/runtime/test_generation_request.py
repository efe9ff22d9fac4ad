"""Requests of a wrong type or range are one sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgepress.common.errors import UserError
from edgepress.runtime.generation_request import GenerationRequest, require_valid

VALID = GenerationRequest("x", seed=2**64 - 1, size=(64, 48), tile_size=32, guidance=4)


def test_numbers_of_numpy_are_numbers() -> None:
    numbers: dict[str, Any] = {"seed": np.uint32(1), "steps": np.int64(2), "guidance": np.float32(4)}
    require_valid(replace(VALID, **numbers))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("prompt", value) for value in (None, b"x", 3)),
        *(("negative_prompt", value) for value in (None, ["x"])),
        *(("seed", value) for value in (-1, 2**64, 1.5, True, "0", None)),
        *(("steps", value) for value in (1.5, "2", True, None)),
        *(("size", value) for value in ("64x64", (64,), (64, 64, 3), (64.0, 64), 64)),
        *(("tile_size", value) for value in (32.5, "32", True)),
        *(("guidance", value) for value in (float("nan"), float("inf"), -1, "4", None, True)),
    ],
)
def test_a_wrong_value_is_named(name: str, value: Any) -> None:
    require_valid(VALID)
    title = {"steps": "number of steps", "size": "image size"}.get(name, name.replace("_", " "))
    with pytest.raises(UserError, match=rf"^Invalid {title} .+: it must be .+\.$"):
        require_valid(replace(VALID, **{name: value}))
