"""Turns what a malformed pipeline.json causes into a sentence about that file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..common.errors import UserError
from ..common.validation import describe_value_error
from ..storage.layout import CONFIG_NAME


@contextmanager
def reject_malformed(folder: Path) -> Iterator[None]:
    """Raises UserError, with the file's name, if configs in pipeline.json lack a key or have an unusable value.

    Args:
        folder: The folder of the export.
    """
    file = folder / CONFIG_NAME
    try:
        yield
    except UserError as error:
        text = str(error)
        raise UserError(text if str(file) in text else f"{file}: {text}") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        reason = describe_value_error(error)
        raise UserError(f"{file} is corrupt ({reason}). Export the artifact again.") from error
