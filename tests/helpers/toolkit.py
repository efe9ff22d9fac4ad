"""Skips tests that need rknn-toolkit2 if it is not installed; `make test` installs it."""

from __future__ import annotations

import pytest

from edgepress.common.errors import UserError
from edgepress.runtime.rknn.toolkit import find_interpreter


def is_toolkit_installed() -> bool:
    try:
        find_interpreter()
    except UserError:
        return False
    return True


needs_toolkit = pytest.mark.skipif(
    not is_toolkit_installed(), reason="rknn-toolkit2 is not installed; run make setup-rknn"
)
