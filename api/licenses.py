"""Identifiers of licences, as the Hugging Face Hub and SPDX write them."""

from __future__ import annotations

import re

from ..common.errors import UserError

RESTRICTED = "other"  # what the Hub calls a licence of its own text
LICENSE_LIST = "https://huggingface.co/docs/hub/repositories-licenses"
IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")


def require_license(identifier: str) -> str:
    """Returns an identifier that can stand in the front matter of a card.

    Raises:
        UserError: It has other characters than those of identifiers.
    """
    if not IDENTIFIER.fullmatch(identifier):
        raise UserError(f"{identifier!r} is no identifier of a licence. Write it like apache-2.0, or other.")
    return identifier


def is_spdx(identifier: str) -> bool:
    """Whether SPDX lists an identifier, in letters of any case."""
    from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

    try:
        canonicalize_license_expression(identifier)
    except InvalidLicenseExpression:
        return False
    return True
