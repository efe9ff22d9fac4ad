"""What is no address of a Ray cluster, or does not answer, is refused."""

from __future__ import annotations

import socket

import pytest

from edgepress.common import cluster_address as module
from edgepress.common.cluster_address import check_cluster
from edgepress.common.errors import UserError


def test_no_address_needs_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    check_cluster(None)
    with pytest.raises(UserError, match=r"needs the package 'ray'.*pip install 'edgepress\[ray\]'"):
        check_cluster("local")


@pytest.mark.parametrize("address", ["", "localhost", "host:0", "host:65536", "ray://host:1", "auto", "host:1:2"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(UserError, match=r"no address of a Ray cluster. Give HOST:PORT"):
        check_cluster(address)


def test_an_address_that_does_not_answer_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda _: True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match=r"does not answer \(.*\). Start it"):
            check_cluster(f"127.0.0.1:{free.getsockname()[1]}")
