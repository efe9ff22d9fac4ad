"""The exception for mistakes that users can fix."""

from __future__ import annotations


class UserError(Exception):
    """Invalid input, or a condition that the user can change, such as a missing file.

    The message says what is wrong, where, and what to do. The library raises it; the command line prints the message
    without a traceback and exits with code 2.
    """
