"""Parses the value of `--clip` and finds the weights that it names.

local-dir:FOLDER              a folder in open_clip's format: open_clip_config.json, weights and a tokenizer
NAME:CHECKPOINT.safetensors   an architecture that open_clip knows by name, and its weights
transformers:FOLDER           a CLIPModel that transformers saved
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ....common.errors import UserError
from ....common.file_names import require_local
from ....storage.files import hash_file
from ....storage.recognition import reject_path
from ....storage.weight_files import select_weight_files

SPEC_FORMATS = "local-dir:FOLDER, NAME:CHECKPOINT.safetensors or transformers:FOLDER"
USAGE_HINT = f"pass --clip {SPEC_FORMATS}"
# The file names that open_clip looks for first, in its order. Any other single file is accepted as well.
PREFERRED_CHECKPOINTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
CONFIG_PATTERNS = ("*.json", "*.txt", "*.model")  # configuration and tokenizer

SpecFormat = Literal["local-dir", "transformers", "name"]


@dataclass(frozen=True)
class ClipSpec:
    """A CLIP model on disk.

    Attributes:
        format: How the model is stored.
        name: Architecture (format `name`), or the last two parts of the folder's path.
        path: The checkpoint (format `name`), or the folder.
        weights: The weight files, in order.
    """

    format: SpecFormat
    name: str
    path: Path
    weights: tuple[Path, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the weights; those of several files are joined by `+`."""
        return "+".join(hash_file(file) for file in self.weights)

    @property
    def config_digest(self) -> str:
        """The first 8 digits of the SHA-256 of configuration and tokenizer."""
        patterns = CONFIG_PATTERNS if self.path.is_dir() else ()
        files = sorted(file for pattern in patterns for file in self.path.glob(pattern))
        return hashlib.sha256("".join(file.name + hash_file(file) for file in files).encode()).hexdigest()[:8]


def parse_clip_spec(text: str) -> ClipSpec:
    """Parses a value of `--clip`.

    Raises:
        UserError: The format is unknown, or the folder or file does not exist or contains no safetensors weights.
    """
    require_local(text)
    prefix, separator, rest = text.partition(":")
    if not (prefix and separator and rest):
        raise UserError(f"Invalid --clip {text!r}. Use {SPEC_FORMATS}.")
    path = Path(rest).expanduser()
    if prefix not in ("local-dir", "transformers"):
        return ClipSpec("name", prefix, path, (_require_checkpoint(path),))
    if not path.is_dir():
        raise reject_path(path, "Give --clip the folder with the CLIP weights")
    name = "/".join(path.resolve().parts[-2:])  # as on a model hub
    if prefix == "local-dir":
        return ClipSpec("local-dir", name, path, (_find_checkpoint(path),))
    return ClipSpec("transformers", name, path, _find_shards(path))


def _require_checkpoint(path: Path) -> Path:
    if path.suffix != ".safetensors":
        raise UserError(
            f"The CLIP checkpoint {path} is not a .safetensors file. Convert it; other formats can execute code."
        )
    if not path.is_file():
        raise reject_path(path, "Give --clip the file with the CLIP weights")
    return path


def _find_checkpoint(folder: Path) -> Path:
    """Returns the file that open_clip would load, if that is certain."""
    files = sorted(folder.glob("*.safetensors"))
    candidates = [folder / name for name in PREFERRED_CHECKPOINTS if folder / name in files] or files
    if not candidates:
        raise UserError(f"{folder} contains no CLIP weights (*.safetensors). Give another --clip.")
    if candidates == files and len(files) > 1 and files[0].name not in PREFERRED_CHECKPOINTS:
        raise UserError(
            f"{folder} contains {len(files)} checkpoints. Keep only one, or rename it to {PREFERRED_CHECKPOINTS[0]}."
        )
    return candidates[0]


def _find_shards(folder: Path) -> tuple[Path, ...]:
    """Returns the files that transformers loads: a single file, or the shards that an index lists."""
    if not any(folder.glob("model*.safetensors*")):
        raise UserError(f"{folder} contains no CLIP weights (model.safetensors). Give another --clip.")
    return select_weight_files(folder).files
