"""Names of files: those that no text can hold, since their bytes are not UTF-8, and addresses, which are none."""

from __future__ import annotations

import re

from .errors import UserError

# A path has no such beginning; as one, two slashes would become one.
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://|(?:https?|ftps?|file|s3|gs|hf|ssh):/", re.IGNORECASE)
SURROGATE = re.compile("[\udc80-\udcff]")  # stands for a byte in names of files (PEP 383)


def require_utf8(name: str, noun: str = "name", advice: str = "Rename the file or folder.") -> None:
    """Checks that a name can be written to results and reports, before there is work to lose.

    Args:
        name: A name or path as Python has it, with a surrogate for each byte that is not UTF-8.
        noun: What it is called in the message.
        advice: A sentence that says what to do.

    Raises:
        UserError: It cannot. The message shows its bytes.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        shown = SURROGATE.sub(lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", name)
        raise UserError(f"The {noun} '{shown}' is not UTF-8. {advice}") from error


def require_local(name: str) -> None:
    """Checks that a name is that of a file or folder of this machine, before it would be taken as one.

    Args:
        name: A name or path that was given.

    Raises:
        UserError: It is an address, such as `https://HOST/FILE`.
    """
    if ADDRESS.match(name):
        raise UserError(f"{name} is an address, and only files and folders of this machine are used. Give a path.")
