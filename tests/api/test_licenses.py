"""Which identifiers of licences SPDX lists; the list is that of the package `packaging`."""

from __future__ import annotations

import pytest

from edgepress.api.licenses import is_spdx


@pytest.mark.parametrize("identifier", ["mit", "Apache-2.0", "cc-by-nc-4.0", "bsd-3-clause", "gpl-3.0", "cc0-1.0"])
def test_identifiers_of_the_list(identifier: str) -> None:
    assert is_spdx(identifier)


@pytest.mark.parametrize("identifier", ["nonsense-1", "apache2", "openrail", "gpl"])
def test_identifiers_that_are_not_in_it(identifier: str) -> None:
    assert not is_spdx(identifier)
