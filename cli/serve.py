"""`edgepress serve`: generates images over HTTP, without torch."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..common.errors import UserError, summarize_error
from ..common.regular_files import require_regular
from ..common.requirements import requires_extra
from ..common.user_folders import get_server_folder
from .command import LOGGER, Command, require_effect
from .execution_providers import provider_option, require_no_npu, threads_option
from .options import PATH, QUIET, provenance_option, verbosity_options
from .parameter_types import Number, Seconds, WholeNumber
from .recorded_hashes import require_recorded_hashes, verify_option

if TYPE_CHECKING:
    from ..runtime.image_metadata import Detail

TOKEN_VARIABLE = "EDGEPRESS_TOKEN"
TOKEN, MAX_TOKEN = re.compile(r"[!-~]+"), 4096
HOST = re.compile(r"[\w.-]+|\[[\da-f:.]+\]", re.ASCII | re.IGNORECASE)
STATE_VARIABLE = "STATE_DIRECTORY"  # that systemd sets for a unit


@click.command(cls=Command)
@click.argument("artifact", type=PATH)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0: all.")
@click.option("--port", type=WholeNumber(0, 65_535), default=8000, show_default=True, help="Port; 0: any free one.")
@click.option(
    "--token-file",
    type=PATH,
    metavar="FILE",
    help=f"File with a token that clients must send.  [default: ${TOKEN_VARIABLE}]",
)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="A further name of the server; may be repeated.",
)
@click.option("--allow-root", is_flag=True, help="Start as root as well.")
@provenance_option
@click.option("--log-prompts", is_flag=True, help="Write prompts to the log.")
@click.option("--low-memory", is_flag=True, help="Keep one graph in memory at a time even if all fit.")
@verify_option
@partial(provider_option, variable="EDGEPRESS_PROVIDER")
@threads_option
@click.option(
    "--max-side", type=WholeNumber(16, 65_536), help="Largest width and height in pixels.  [default: the artifact's]"
)
@click.option(
    "--max-steps", type=WholeNumber(1, 10_000), default=50, show_default=True, help="Largest number of steps."
)
@click.option("--max-images", type=WholeNumber(1, 10), default=4, show_default=True, help="Images of one request.")
@click.option(
    "--max-prompt", type=WholeNumber(1, 100_000), default=2000, show_default=True, help="Characters of a prompt."
)
@click.option(
    "--max-waiting", type=WholeNumber(0, 10_000), default=8, show_default=True, help="Requests that may wait."
)
@click.option("--timeout", type=Seconds(), default=3600, show_default=True, help="Time for a request.")
@click.option(
    "--state",
    type=PATH,
    metavar="DIR",
    help=f"Folder of templates and images.  [default: ${STATE_VARIABLE}, or in your state folder]",
)
@click.option(
    "--keep-images", type=WholeNumber(0, 100_000), default=100, show_default=True, help="Generated images to keep."
)
@click.option(
    "--keep-hours",
    type=Number(0, 1e6, min_open=True),
    default=168.0,
    show_default=True,
    help="Hours to keep each.",
)
@verbosity_options
@requires_extra("server")
def serve(
    artifact: Path,
    host: str,
    port: int,
    token_file: Path | None,
    allowed_hosts: tuple[str, ...],
    allow_root: bool,
    provenance: Detail,
    log_prompts: bool,
    low_memory: bool,
    verify: bool,
    providers: tuple[str, ...],
    threads: int | None,
    max_side: int | None,
    max_steps: int,
    max_images: int,
    max_prompt: int,
    max_waiting: int,
    timeout: float,
    state: Path | None,
    keep_images: int,
    keep_hours: float,
) -> None:
    """Generate images over HTTP: a page at /, POST /generate, and OpenAI's /v1/images/generations.

    Only this machine can reach the server unless --host says otherwise. One image is generated at a time, other
    requests wait.
    """
    if not allow_root and hasattr(os, "geteuid") and os.geteuid() == 0:
        raise UserError("The server does not start as root. Start it as another user, or give --allow-root.")
    require_effect("--keep-hours", keep_images > 0, "--keep-images 0 keeps no image")
    _check_hosts(allowed_hosts)
    token = _read_token(token_file)
    if providers:
        require_no_npu(artifact)
    if verify:
        require_recorded_hashes(artifact)
    from ..serving.server import run_server
    from ..serving.settings import Limits, ServerSettings

    limits = Limits(
        max_side=max_side,
        max_steps=max_steps,
        max_images=max_images,
        max_prompt_characters=max_prompt,
        max_waiting=max_waiting,
        timeout_s=timeout,
        keep_images=keep_images,
        keep_hours=keep_hours,
    )
    settings = ServerSettings(
        artifact,
        state or _default_state(),
        host,
        port,
        token,
        allowed_hosts,
        log_prompts,
        low_memory,
        providers,
        threads,
        limits,
        provenance,
    )
    require_effect("--allowed-host", settings.is_local, f"a server on {host} answers to every name")
    if not settings.is_local and not token:
        LOGGER.warning("Anyone who reaches %s can generate images. Give --token-file to ask for a token.", host)
    if LOGGER.level == logging.WARNING and not click.get_current_context().meta.get(QUIET):
        LOGGER.setLevel(logging.INFO)
    run_server(settings, lambda url: click.echo(f"Serving {artifact} at {url}"))


def _read_token(file: Path | None) -> str:
    """The token of a file or of the environment; empty if there is neither."""
    if file is None:
        return _check_token(os.environ.get(TOKEN_VARIABLE, "").strip(), f"${TOKEN_VARIABLE}")
    require_regular(file, "Give another --token-file.")
    try:
        with file.open(encoding="utf-8") as stream:
            token = stream.read(MAX_TOKEN + 1).strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = summarize_error(error)
        raise UserError(f"Cannot read the token in {file} ({reason}). Give another --token-file.") from error
    if not token:
        raise UserError(f"{file} holds no token. Write one into it, or leave out --token-file.")
    return _check_token(token, str(file))


def _check_token(token: str, place: str) -> str:
    """The token, if a client can send it."""
    if token and (len(token) > MAX_TOKEN or not TOKEN.fullmatch(token)):
        raise UserError(
            f"{place} holds no token that a client can send. Write one line of at most {MAX_TOKEN} letters, digits and "
            "signs, without spaces."
        )
    return token


def _check_hosts(names: Sequence[str]) -> None:
    """Checks that names are such as clients send in `Host`."""
    for name in names:
        if not HOST.fullmatch(name):
            raise UserError(f"--allowed-host '{name}' is not the name of a host. Write it like board.local.")


def _default_state() -> Path:
    """The folder that systemd made for the unit, or one in the user's."""
    named = os.environ.get(STATE_VARIABLE, "").partition(":")[0]
    try:
        return Path(named) if named else get_server_folder()
    except RuntimeError as error:
        raise UserError("There is no home folder for templates and images. Give --state.") from error
