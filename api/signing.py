"""Signs an artifact with a private key, as the OpenSSF Model Signing specification has it, and checks the signature.

All published files are signed, by their SHA-256. What is measured or set up where the artifact runs is left out, so
that it can change without another signature. A second signature is of what boards need, so that a copy without the
quantized pipeline can be checked as well.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..common.arguments import check_arguments
from ..common.errors import UserError, summarize_error
from ..common.requirements import requires_extra
from ..storage.layout import (
    BENCH,
    BOARD_SIGNATURE,
    ENGINES_FOLDER,
    EVALUATION,
    KIT,
    LOCAL,
    LOCAL_CHECKSUMS,
    MODEL,
    ONNX,
    SIGNATURE,
    TIMINGS,
    WEIGHT_EXPORTS,
    WORK,
    Artifact,
)
from ..storage.preflight import check_writable_folder
from ..storage.publishing import artifact_lock
from ..storage.recognition import is_artifact, reject_path

# How model-signing words what differs.
DIFFERENCES = {
    "missing": r"Missing files in model '[^']*': ([^'\"]*)",
    "added": r"Extra files found in model '[^']*': ([^'\"]*)",
    "changed": r"Hash mismatch for '([^']*)'",
}
MAX_NAMES = 5
MEASURED = (EVALUATION, BENCH, KIT, TIMINGS, LOCAL, LOCAL_CHECKSUMS, WORK, f"{ONNX}/{ENGINES_FOLDER}")
UNSIGNED = (*MEASURED, SIGNATURE, BOARD_SIGNATURE)
NOT_ON_BOARDS = (MODEL, *WEIGHT_EXPORTS)


@check_arguments
@requires_extra("sign")
def sign(path: str | Path, key: str | Path) -> Path:
    """Signs an artifact, offline. Earlier signatures are replaced.

    Where there is more than boards need, what they need of it is signed as well, in `board.sig`.

    Args:
        path: The artifact.
        key: A private key on an elliptic curve (P-256, P-384 or P-521), in PEM without a password.

    Returns:
        The file of the signature, in the artifact.

    Raises:
        UserError: It is no artifact, the key cannot be used, or the signature cannot be written.
    """
    artifact, key = _require_artifact(path), _require_key(key)
    signature = artifact.path / SIGNATURE
    check_writable_folder(artifact.path)
    from model_signing import signing

    try:
        signer = signing.Config().use_elliptic_key_signer(private_key=key)
        with artifact_lock(artifact.path):
            signer.set_hashing_config(_configure_hashing()).sign(artifact.path, signature)
            board_signature = artifact.path / BOARD_SIGNATURE
            board_signature.unlink(missing_ok=True)
            if not _is_board_copy(artifact) and (artifact.has_onnx or artifact.has_rknn):
                signer.set_hashing_config(_configure_hashing(NOT_ON_BOARDS)).sign(artifact.path, board_signature)
    except (OSError, TypeError, ValueError) as error:
        raise UserError(
            f"{artifact.path} cannot be signed with {key} ({summarize_error(error)}). Give a private key on an "
            "elliptic curve, in PEM without a password."
        ) from error
    return signature


@check_arguments
@requires_extra("sign")
def check_signature(path: str | Path, key: str | Path) -> None:
    """Checks that an artifact is what the owner of a key signed: no file was changed, added or removed.

    A copy of what boards need is checked with the signature of that.

    Args:
        path: The artifact.
        key: The public key, in PEM.

    Raises:
        UserError: It is no artifact, has no signature, or the signature is that of another key or of other files.
    """
    artifact, key = _require_artifact(path), _require_key(key)
    is_board_copy = _is_board_copy(artifact) and (artifact.path / BOARD_SIGNATURE).is_file()
    signature = artifact.path / (BOARD_SIGNATURE if is_board_copy else SIGNATURE)
    if not signature.is_file():
        raise UserError(f"{artifact.path} has no signature for a public key to check. Ask who made it for one.")
    from model_signing import verifying

    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=key)
        verifier.set_hashing_config(_configure_hashing()).verify(artifact.path, signature)
    except Exception as error:  # the package raises what its parts do
        difference = _summarize_difference(error)
        hint = (
            f" Copy {BOARD_SIGNATURE} as well, which is of what boards need." if "missing: model/" in difference else ""
        )
        raise UserError(
            f"{artifact.path} is not what the owner of {key} signed ({difference}).{hint} Copy it again, or check the "
            "key."
        ) from error


def _summarize_difference(error: Exception) -> str:
    """The files that the package says are missing, added or changed, without their digests; or what else it says."""
    differences = []
    for word, pattern in DIFFERENCES.items():
        groups = re.findall(pattern, str(error).replace("\\", ""))
        names = [name for group in groups for name in group.split(", ")]
        if names:
            more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
            differences.append(f"{word}: {', '.join(names[:MAX_NAMES])}{more}")
    return "; ".join(differences) or summarize_error(error)


def _configure_hashing(left_out: Sequence[str] = ()) -> Any:
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=(*UNSIGNED, *left_out), ignore_git_paths=False)


def _is_board_copy(artifact: Artifact) -> bool:
    """Whether there is nothing that boards do not need."""
    return not any((artifact.path / name).exists() for name in NOT_ON_BOARDS)


def _require_artifact(path: str | Path) -> Artifact:
    if not is_artifact(Path(path)):
        raise reject_path(Path(path), "Give an artifact that edgepress made", is_artifact)
    return Artifact(Path(path))


def _require_key(key: str | Path) -> Path:
    if not Path(key).is_file():
        raise UserError(f"There is no key {key}. Give a file in PEM.")
    return Path(key)
