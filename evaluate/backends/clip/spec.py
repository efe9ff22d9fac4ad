"""Which CLIP: what `--clip` says, and the weights that it comes to.

local-dir:FOLDER              open_clip's folder: open_clip_config.json, weights, and a tokenizer
NAME:CHECKPOINT.safetensors   an architecture that open_clip knows by name, and its weights
transformers:FOLDER           a CLIPModel that transformers saved
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ....common.errors import UserError
from ....storage.files import hash_file

SPEC_FORMATS = "local-dir:FOLDER, NAME:CHECKPOINT.safetensors or transformers:FOLDER"
USAGE_HINT = f"pass --clip {SPEC_FORMATS}"
# Names that open_clip looks for first, in its order; any other single file will do.
PREFERRED_CHECKPOINTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
SHARD_PATTERN = "model-*-of-*.safetensors"
CONFIG_PATTERNS = ("*.json", "*.txt", "*.model")  # configuration and tokenizer

SpecFormat = Literal["local-dir", "transformers", "name"]


@dataclass(frozen=True)
class ClipSpec:
    """A CLIP on disk. path: the folder, or with `name` the checkpoint. weights: its files, in order."""

    format: SpecFormat
    name: str
    path: Path
    weights: tuple[Path, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the weights; several files' are joined by `+`."""
        return "+".join(hash_file(file) for file in self.weights)

    @property
    def config_digest(self) -> str:
        """The first letters of the SHA-256 of the folder's configuration and tokenizer."""
        files = (
            sorted(file for pattern in CONFIG_PATTERNS for file in self.path.glob(pattern))
            if self.path.is_dir()
            else []
        )
        return hashlib.sha256("".join(file.name + hash_file(file) for file in files).encode()).hexdigest()[:8]


def parse_clip_spec(text: str) -> ClipSpec:
    """What `--clip` names.

    Raises:
        UserError: no such form, folder or file, or no safetensors in it.
    """
    form, separator, rest = text.partition(":")
    if not (form and separator and rest):
        raise UserError(f"--clip {text} names no CLIP; write {SPEC_FORMATS}.")
    path = Path(rest).expanduser()
    if form not in ("local-dir", "transformers"):
        return ClipSpec("name", form, path, (_require_checkpoint(path),))
    if not path.is_dir():
        raise UserError(f"--clip {text}: there is no folder {path}; give the one that holds CLIP's weights.")
    weights = (_find_checkpoint(path),) if form == "local-dir" else _find_shards(path)
    return ClipSpec("local-dir" if form == "local-dir" else "transformers", _get_short_name(path), path, weights)


def _get_short_name(folder: Path) -> str:
    """The last two names of a path, as on a hub."""
    return "/".join(folder.resolve().parts[-2:])


def _require_checkpoint(path: Path) -> Path:
    if path.suffix != ".safetensors":
        raise UserError(
            f"CLIP's checkpoint {path} is no .safetensors file; save its weights as one (others can run code)."
        )
    if not path.is_file():
        raise UserError(f"There is no CLIP checkpoint {path}; give the file that holds its weights.")
    return path


def _find_checkpoint(folder: Path) -> Path:
    """The file that open_clip would take; a folder that leaves it to chance is refused."""
    found = sorted(folder.glob("*.safetensors"))
    chosen = [folder / name for name in PREFERRED_CHECKPOINTS if folder / name in found] or found
    if not chosen:
        raise UserError(f"{folder} holds no CLIP weights (*.safetensors); random ones are never used.")
    if chosen == found and len(found) > 1 and chosen[0].name not in PREFERRED_CHECKPOINTS:
        raise UserError(f"{folder} holds {len(found)} checkpoints; leave one, or name it {PREFERRED_CHECKPOINTS[0]}.")
    return chosen[0]


def _find_shards(folder: Path) -> tuple[Path, ...]:
    """What transformers saves: one file, or shards."""
    single = folder / "model.safetensors"
    files = (single,) if single.exists() else tuple(sorted(folder.glob(SHARD_PATTERN)))
    if not files:
        raise UserError(f"{folder} holds no CLIP weights (model.safetensors); random ones are never used.")
    return files
