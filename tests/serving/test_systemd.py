"""Reports to systemd arrive at a real socket."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from edgepress.serving.systemd import IDLE_INTERVAL_S, Systemd


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_reports_arrive(tmp_path: Path, kind: str) -> None:
    address = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address if kind == "path" else "\0" + address)
        listener.settimeout(5)
        systemd = Systemd.from_environment(
            {"NOTIFY_SOCKET": address if kind == "path" else f"@{address}", "WATCHDOG_USEC": "30000000"}
        )
        systemd.notify("READY=1", "STATUS=Ready")
        assert listener.recv(100) == b"READY=1\nSTATUS=Ready"
    assert systemd.watchdog_interval == 10


def test_without_systemd_nothing_is_sent() -> None:
    systemd = Systemd.from_environment({"WATCHDOG_USEC": "x"})
    systemd.notify("READY=1")
    assert systemd.watchdog_interval == IDLE_INTERVAL_S


def test_a_socket_that_is_gone_does_no_harm(tmp_path: Path) -> None:
    Systemd(str(tmp_path / "gone")).notify("WATCHDOG=1")
