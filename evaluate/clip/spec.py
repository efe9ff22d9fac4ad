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

from ...checkpoint import sha256
from ...errors import UserError

FORMS = "local-dir:FOLDER, NAME:CHECKPOINT.safetensors or transformers:FOLDER"
HOW = f"pass --clip {FORMS}"
# Names that open_clip looks for first, in its order; any other single file will do.
PREFERRED = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "model.safetensors")
SHARDS = "model-*-of-*.safetensors"
SETTINGS = ("*.json", "*.txt", "*.model")  # configuration and tokenizer

Form = Literal["local-dir", "transformers", "name"]


@dataclass(frozen=True)
class Spec:
    """A CLIP on disk. path: the folder, or with `name` the checkpoint. weights: its files, in order."""

    form: Form
    name: str
    path: Path
    weights: tuple[Path, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the weights; several files' are joined by `+`."""
        return "+".join(sha256(file) for file in self.weights)

    @property
    def settings_digest(self) -> str:
        """The first letters of the SHA-256 of the folder's configuration and tokenizer."""
        files = sorted(file for pattern in SETTINGS for file in self.path.glob(pattern)) if self.path.is_dir() else []
        return hashlib.sha256("".join(file.name + sha256(file) for file in files).encode()).hexdigest()[:8]


def parse(text: str) -> Spec:
    """What `--clip` names.

    Raises:
        UserError: no such form, folder or file, or no safetensors in it.
    """
    form, separator, rest = text.partition(":")
    if not (form and separator and rest):
        raise UserError(f"--clip {text} names no CLIP; write {FORMS}.")
    path = Path(rest).expanduser()
    if form not in ("local-dir", "transformers"):
        return Spec("name", form, path, (_checkpoint(path),))
    if not path.is_dir():
        raise UserError(f"--clip {text}: there is no folder {path}; give the one that holds CLIP's weights.")
    weights = (_only(path),) if form == "local-dir" else _saved(path)
    return Spec("local-dir" if form == "local-dir" else "transformers", _label(path), path, weights)


def _label(folder: Path) -> str:
    """The last two names of a path, as on a hub."""
    return "/".join(folder.resolve().parts[-2:])


def _checkpoint(path: Path) -> Path:
    if path.suffix != ".safetensors":
        raise UserError(
            f"CLIP's checkpoint {path} is no .safetensors file; save its weights as one (others can run code)."
        )
    if not path.is_file():
        raise UserError(f"There is no CLIP checkpoint {path}; give the file that holds its weights.")
    return path


def _only(folder: Path) -> Path:
    """The file that open_clip would take; a folder that leaves it to chance is refused."""
    found = sorted(folder.glob("*.safetensors"))
    chosen = [folder / name for name in PREFERRED if folder / name in found] or found
    if not chosen:
        raise UserError(f"{folder} holds no CLIP weights (*.safetensors); random ones are never used.")
    if chosen == found and len(found) > 1 and chosen[0].name not in PREFERRED:
        raise UserError(f"{folder} holds {len(found)} checkpoints; leave one, or name it {PREFERRED[0]}.")
    return chosen[0]


def _saved(folder: Path) -> tuple[Path, ...]:
    """What transformers saves: one file, or shards."""
    single = folder / "model.safetensors"
    files = (single,) if single.exists() else tuple(sorted(folder.glob(SHARDS)))
    if not files:
        raise UserError(f"{folder} holds no CLIP weights (model.safetensors); random ones are never used.")
    return files
