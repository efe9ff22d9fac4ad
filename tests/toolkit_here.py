"""Whether rknn-toolkit2 is set up, for tests that run it; `make test` sets it up."""

from __future__ import annotations

import pytest

from edgepress.errors import UserError
from edgepress.runtime.rknn.toolkit import interpreter


def is_here() -> bool:
    try:
        interpreter()
    except UserError:
        return False
    return True


needs_toolkit = pytest.mark.skipif(not is_here(), reason="rknn-toolkit2 is not set up: make setup-rknn")
