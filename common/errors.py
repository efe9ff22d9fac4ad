"""The one exception that a user is meant to read."""

from __future__ import annotations


class UserError(Exception):
    """Bad input or circumstances: one sentence that says what is wrong, where, and what to do.

    Libraries raise it; the command line prints it without a traceback and exits with code 2.
    """
