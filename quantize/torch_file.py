"""Files of torch.save, for nested values of tensors that last no longer than a run."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import torch

from ..storage.atomic_file import atomic_write


def save_torch_file(content: Any, file: Path) -> None:
    """Stores tensors in lists and dictionaries in one piece, as `torch.load` reads them with `weights_only`.

    Raises:
        OSError: The file cannot be written. torch itself raises a RuntimeError without a reason, as on a full disk.
    """

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            recorder = _ErrorRecorder(stream)
            try:
                torch.save(content, recorder)  # type: ignore[arg-type]  # it needs only `write` and `flush`
            except RuntimeError:
                if recorder.error:
                    raise recorder.error from None
                raise

    atomic_write(file, write)


class _ErrorRecorder:
    """Passes on what is written, and remembers why it could not be."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        try:
            return self._stream.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._stream.flush()
