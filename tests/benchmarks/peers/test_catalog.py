"""Every peer has a name, pinned requirements and a worker."""

from __future__ import annotations

import re

import pytest

from edgepress.benchmarks.peers import catalog, environments

NAMES = [f"{peer.environment}/{peer.name}" for peer in catalog.PEERS]


def test_names_and_titles_are_unique() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert len({peer.title for peer in catalog.PEERS}) == len(NAMES)


@pytest.mark.parametrize("peer", catalog.PEERS, ids=NAMES)
def test_a_peer_has_pinned_requirements_and_a_worker(peer: catalog.Peer) -> None:
    pins = [line for line in environments.read_requirements(peer.environment).splitlines() if not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.+]+", line)] == []
    source = (environments.FOLDER / "workers" / f"{peer.worker}.py").read_text("utf-8")
    package = re.search(r'^PACKAGE = "([\w-]+)"$', source, re.MULTILINE)
    assert package is not None
    assert package[1].lower() in {line.split("==")[0].lower() for line in pins}
