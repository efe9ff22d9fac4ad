"""Files of LoRAs: which file a user names, what it holds, and how strongly each of its layers is scaled.

A LoRA adds `scale * up @ down` to a weight, with matrices of a low rank. Files come from diffusers, from PEFT, or from
trainers with names of their own, which are converted elsewhere (`lora_conversion`).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.errors import UserError
from ..common.file_names import require_local
from ..common.validation import format_value
from ..storage.checkpoint import open_safetensors
from ..storage.files import hash_file, read_json_object
from ..storage.manifest import LoraRecord
from ..storage.safetensors_header import read_tensor_headers
from ..storage.weight_formats import FLOAT_DTYPES
from .hub import DEMO_LORA

if TYPE_CHECKING:
    from torch import Tensor

NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")  # of diffusers and PEFT, in a folder
PEFT_CONFIG = "adapter_config.json"
PEFT_PREFIX = "base_model.model."
DIFFUSERS_METADATA = "lora_adapter_metadata"
LOW_RANK = re.compile(r"lora[._]|(^|\.)(down|up)\.weight$")
OTHER_ADAPTERS = {  # what names of tensors say, and what such an adapter is called
    r"dora_scale|lora_magnitude_vector": "DoRA",
    r"\.lokr_": "LoKr",
    r"\.hada_": "LoHa",
    r"\.oft_": "OFT",
    r"\.lora_mid\.": "LoRA with a Tucker decomposition",
}


@dataclass(frozen=True)
class LoraSpec:
    """A LoRA and how much of it is added.

    Attributes:
        file: The safetensors file.
        weight: Factor of what the LoRA adds.
    """

    file: Path
    weight: float = 1.0

    @property
    def location(self) -> str:
        """The absolute path and the weight, as `parse_lora` reads them."""
        return f"{self.file.resolve()}:{self.weight!r}"

    def record(self) -> LoraRecord:
        """What a manifest says about the LoRA; the file is read."""
        config = self.file.parent / PEFT_CONFIG
        return LoraRecord(
            path=self.file.name,
            bytes=self.file.stat().st_size,
            sha256=hash_file(self.file),
            weight=self.weight,
            config_sha256=hash_file(config) if config.is_file() else None,
        )


@dataclass(frozen=True)
class LoraScaling:
    """How the layers of a LoRA are scaled: by alpha / rank, or by alpha / sqrt(rank).

    Attributes:
        alpha: Alpha of the layers that have none of their own; None: their rank, so that they are not scaled.
        alphas: Alpha of layers by their path, or by a pattern that its end matches.
        by_root: Whether the square root of the rank divides (rank-stabilized LoRA).
    """

    alpha: float | None = None
    alphas: Mapping[str, float] = field(default_factory=dict)
    by_root: bool = False

    @classmethod
    def from_config(cls, config: Mapping[str, Any], file: Path) -> LoraScaling:
        """Reads the keys of a PEFT config.

        Args:
            config: The config.
            file: The file of the LoRA, for messages.

        Raises:
            UserError: An alpha is not a number, or a pattern is no regular expression.
        """
        alpha, patterns = config.get("lora_alpha"), config.get("alpha_pattern") or {}
        if not (alpha is None or _is_number(alpha)):
            raise UserError(f"{file}: its lora_alpha is {format_value(alpha)}, not a number. Download it again.")
        if not isinstance(patterns, Mapping) or not all(map(_is_number, patterns.values())):
            raise UserError(f"{file}: its alpha_pattern does not give a number for each layer. Download it again.")
        for pattern in patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise UserError(
                    f"{file}: its alpha_pattern has {format_value(pattern)}, which is no regular expression ({error}). "
                    "Download it again."
                ) from error
        return cls(alpha, patterns, bool(config.get("use_rslora")))

    def get_scale(self, path: str, rank: int) -> float:
        """The factor of a layer's product."""
        if path in self.alphas:
            alpha: float | None = self.alphas[path]
        else:
            matches = (alpha for pattern, alpha in self.alphas.items() if re.match(rf"(.*\.)?({pattern})$", path))
            alpha = next(matches, self.alpha)
        return 1.0 if alpha is None else alpha / (math.sqrt(rank) if self.by_root else rank)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class LoraContent:
    """The tensors of a LoRA's file.

    Attributes:
        tensors: The tensors by their names.
        configs: Keys of PEFT's config by component, as diffusers stores them in the file.
        peft_config: The config of PEFT beside a file that PEFT wrote. The names of such a file are `PEFT_PREFIX` and
            paths in the model.
    """

    tensors: dict[str, Tensor]
    configs: Mapping[str, Mapping[str, Any]]
    peft_config: Mapping[str, Any] | None


def parse_lora(text: str) -> LoraSpec:
    """Parses `PATH` or `PATH:WEIGHT`; the path is a safetensors file, a folder with one, or `demo`.

    Raises:
        UserError: There is no such file, it is no safetensors file, a folder has none or several, or the weight is no
            finite number.
    """
    require_local(text)
    path, colon, weight = text.rpartition(":")
    if not colon or Path(text).exists():
        return LoraSpec(_find_file(text, text))
    try:
        factor = float(weight)
    except ValueError:
        factor = math.nan
    if not math.isfinite(factor):
        raise UserError(f"LoRA {text}: {weight!r} is not a finite number. Write it like {path}:0.8.")
    return LoraSpec(_find_file(path, text), factor)


def parse_loras(texts: Sequence[str]) -> list[LoraSpec]:
    """Parses several LoRAs as `parse_lora` does.

    Raises:
        UserError: As for `parse_lora`, or two of them are the same file or have the same content: what is given twice
            would be added twice.
    """
    specs = [parse_lora(text) for text in texts]
    for number, spec in enumerate(specs):
        for earlier in specs[:number]:
            if _is_same_lora(earlier, spec):
                place = spec.file if earlier.file == spec.file else f"{earlier.file} and {spec.file}"
                raise UserError(
                    f"The same LoRA is given twice, {place}, and would be added twice. Give it once, with the sum of "
                    f"both weights: {earlier.file}:{earlier.weight + spec.weight:g}."
                )
    return specs


def _is_same_lora(earlier: LoraSpec, later: LoraSpec) -> bool:
    """Whether two files hold the same, wherever links lead. Files of other sizes are not read."""
    if earlier.file.resolve() == later.file.resolve():
        return True
    return earlier.file.stat().st_size == later.file.stat().st_size and hash_file(earlier.file) == hash_file(later.file)


def _find_file(name: str, text: str) -> Path:
    """The file of a LoRA's path.

    Args:
        name: The path, or `demo`.
        text: The path with the weight, as it was given.
    """
    path = DEMO_LORA if name == "demo" else Path(name)
    if path.is_dir():
        files = [path / name for name in NAMES if (path / name).is_file()] or sorted(path.glob("*.safetensors"))
        if len(files) != 1:
            number = "no" if not files else "more than one"
            raise UserError(f"The LoRA folder {path} has {number} .safetensors file. Give the file of the LoRA itself.")
        return files[0]
    if not path.is_file():
        raise UserError(f"There is no LoRA {text}. Give a .safetensors file or a folder with one.")
    if path.suffix != ".safetensors":
        raise UserError(
            f"The LoRA {path} is not a .safetensors file, and pickled files are not loaded because they can run code. "
            "Convert it to safetensors."
        )
    return path


def read_lora(file: Path) -> LoraContent:
    """Reads all tensors of a LoRA, and how they are scaled.

    Raises:
        UserError: The file is corrupt, or not what `check_lora_header` requires.
    """
    names = check_lora_header(file)
    with open_safetensors(file) as opened:
        tensors = {name: opened.get_tensor(name) for name in names}
        metadata = opened.metadata() or {}
    config = file.parent / PEFT_CONFIG
    if names[0].startswith(PEFT_PREFIX) and config.exists():
        return LoraContent(tensors, {}, read_json_object(config))
    return LoraContent(tensors, _split_metadata(file, metadata), None)


def check_lora_header(file: Path) -> list[str]:
    """Checks by its header that a file holds a LoRA that can be read.

    Returns:
        The names of its tensors.

    Raises:
        UserError: The file is corrupt, holds no LoRA or an adapter of another kind, or has other numbers than floats.
    """
    headers = read_tensor_headers(file)
    names = [header.name for header in headers]
    _require_lora(file, names)
    stored = next((header for header in headers if header.dtype not in FLOAT_DTYPES), None)
    if stored is not None:
        raise UserError(
            f"{file} has {stored.name} in {stored.dtype}, which is not read. Use a LoRA in BF16, F16 or F32."
        )
    return names


def _require_lora(file: Path, names: list[str]) -> None:
    for pattern, kind in OTHER_ADAPTERS.items():
        if name := next((name for name in names if re.search(pattern, name)), None):
            raise UserError(
                f"{file} is a {kind} ({name}), which cannot be merged. Use a plain LoRA, or merge it in the program "
                "that trained it."
            )
    if not any(LOW_RANK.search(name) for name in names):
        raise UserError(f"{file} is not a LoRA: no tensor of it is named like one. Give the file of a LoRA.")


def _split_metadata(file: Path, metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The keys of PEFT's config by component, as diffusers stores them in a file's metadata."""
    if DIFFUSERS_METADATA not in metadata:
        return {}
    try:
        content = json.loads(metadata[DIFFUSERS_METADATA])
        configs: dict[str, dict[str, Any]] = {}
        for name, value in content.items():
            component, _, key = name.partition(".")
            configs.setdefault(component, {})[key] = value
    except (ValueError, AttributeError) as error:
        raise UserError(f"{file}: its {DIFFUSERS_METADATA} is corrupt ({error}). Download it again.") from error
    return configs
