"""The address of a Ray cluster, and whether something answers there."""

from __future__ import annotations

import re
import socket
from importlib.util import find_spec

from .errors import UserError, summarize_error

LOCAL = "local"  # a cluster of this machine alone, which ends with the command
ADDRESS_PATTERN = re.compile(r"(?P<host>[\w.-]+|\[[\da-fA-F:.]+\]):(?P<port>\d{1,5})", re.ASCII)
CONNECT_TIMEOUT_S = 5.0


def check_cluster(address: str | None) -> None:
    """Checks, before any long work, that a cluster can be used as far as that takes no time.

    Raises:
        UserError: Ray is not installed, or the address is none or does not answer.
    """
    if address is None:
        return
    match = ADDRESS_PATTERN.fullmatch(address)
    if address != LOCAL and (match is None or not 0 < int(match["port"]) < 2**16):
        raise UserError(
            f"--ray {address} is no address of a Ray cluster. Give HOST:PORT, such as 10.0.0.1:6379, or local."
        )
    if find_spec("ray") is None:
        raise UserError("--ray needs the package 'ray', which is not installed. Run: pip install 'edgepress[ray]'")
    if match is None:
        return
    try:
        socket.create_connection((match["host"].strip("[]"), int(match["port"])), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise UserError(
            f"The Ray cluster {address} does not answer ({summarize_error(error)}). Start it, or correct the address."
        ) from error
