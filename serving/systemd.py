"""Reports to systemd through its notification socket (sd_notify), and to nobody where there is none."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

MICROSECONDS = 1e6
IDLE_INTERVAL_S = 10.0  # where no watchdog asks


@dataclass(frozen=True)
class Systemd:
    """The notification socket of a service.

    Attributes:
        address: Its path, or its abstract name after `@`; empty: the process is no service.
        watchdog_interval: Seconds between reports; a third of what the unit's `WatchdogSec` asks.
    """

    address: str = ""
    watchdog_interval: float = IDLE_INTERVAL_S

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Systemd:
        """The socket that systemd names in the environment."""
        timeout = environment.get("WATCHDOG_USEC", "")
        interval = int(timeout) / MICROSECONDS / 3 if timeout.isdecimal() and int(timeout) else IDLE_INTERVAL_S
        return cls(environment.get("NOTIFY_SOCKET", ""), interval)

    def notify(self, *states: str) -> None:
        """Sends states such as `READY=1`. A report that cannot be sent is lost, as sd_notify's are."""
        if not self.address:
            return
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto("\n".join(states).encode(), address)
