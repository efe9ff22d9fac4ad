"""How a server runs: where it listens, whom it answers, and its limits."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from ..runtime.image_metadata import Detail

KIB = 1024
DEFAULT_HOST, DEFAULT_PORT = "127.0.0.1", 8000


@dataclass(frozen=True)
class Limits:
    """What the server accepts and how long it keeps it.

    Attributes:
        max_side: Largest height and width in pixels; None for the largest side that the artifact was made for.
        max_steps: Largest number of denoising steps.
        max_images: Images of one request.
        max_prompt_characters: Length of a prompt, that of its template included.
        max_body_bytes: Size of a request's body.
        max_image_bytes: That size if the artifact can start from images.
        max_waiting: Requests that wait while another is being worked on.
        timeout_s: Seconds from accepting a request to its last image.
        body_timeout_s: Seconds that a client may take to send a body.
        keep_images: Generated images that are kept on disk; 0 for none.
        keep_hours: Hours that each of them is kept.
    """

    max_side: int | None = None
    max_steps: int = 50
    max_images: int = 4
    max_prompt_characters: int = 2000
    max_body_bytes: int = 64 * KIB
    max_image_bytes: int = 16 * KIB**2
    max_waiting: int = 8
    timeout_s: float = 3600.0
    body_timeout_s: float = 30.0
    keep_images: int = 100
    keep_hours: float = 168.0


@dataclass(frozen=True)
class ServerSettings:
    """How a server runs.

    Attributes:
        artifact: Folder of the artifact, or of its graphs.
        state: Folder of the prompt templates and of the generated images.
        host: Address to listen on.
        port: Port to listen on; 0 for any free one.
        token: What clients must send as `Authorization: Bearer TOKEN`; empty if they need not.
        allowed_hosts: Names that clients may call the server by, besides its address.
        logs_prompts: Whether prompts are written to the log.
        low_memory: Whether one graph is in memory at a time even if all fit.
        providers: Execution providers of ONNX Runtime; empty for the CPU.
        threads: Threads of a graph on the CPU; None: as the artifact's recipe says.
        limits: What is accepted.
        provenance: What image files say of how they were generated.
    """

    artifact: Path
    state: Path
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    token: str = ""
    allowed_hosts: tuple[str, ...] = ()
    logs_prompts: bool = False
    low_memory: bool = False
    providers: tuple[str, ...] = ()
    threads: int | None = None
    limits: Limits = field(default_factory=Limits)
    provenance: Detail = "hash"

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
