from __future__ import annotations

import subprocess
import sys

import pytest

from edgepress.numerics.quant_spec import QuantSpec


def test_the_default_is_int4_with_zero_points_in_groups_of_128() -> None:
    spec = QuantSpec()
    assert (spec.bits, spec.group_size, spec.symmetric, spec.narrow_range) == (4, 128, False, False)


def test_a_narrow_range_is_symmetric() -> None:
    assert QuantSpec(symmetric=True, narrow_range=True).narrow_range
    with pytest.raises(ValueError, match="narrow_range needs symmetric=True"):
        QuantSpec(narrow_range=True)


def test_equal_formats_are_one_key() -> None:
    assert len({QuantSpec(), QuantSpec(4, 128), QuantSpec(8)}) == 2


def test_recipes_can_name_formats_without_torch() -> None:
    code = "import sys, edgepress.numerics.quant_spec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
