"""`--provider`, which applies to ONNX graphs only."""

from __future__ import annotations

from pathlib import Path

from ..common.errors import UserError


def require_no_npu(artifact: Path) -> None:
    """Checks that an artifact for which the user chose execution providers is run by ONNX Runtime.

    Raises:
        UserError: It holds parts for an NPU.
    """
    from ..runtime.rknn.exported import is_rknn_artifact

    if is_rknn_artifact(artifact):
        raise UserError(f"{artifact} holds parts for an NPU, which ONNX Runtime does not run. Remove --provider.")
