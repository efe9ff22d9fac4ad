"""Identifiers of licences, as the Hugging Face Hub and SPDX write them."""

from __future__ import annotations

import re

from ..common.errors import UserError

IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")


def require_license(identifier: str) -> str:
    """Returns an identifier that can stand in the front matter of a card.

    Raises:
        UserError: It has other characters than those of identifiers.
    """
    if not IDENTIFIER.fullmatch(identifier):
        raise UserError(f"{identifier!r} is no identifier of a licence. Write it like apache-2.0, or other.")
    return identifier
