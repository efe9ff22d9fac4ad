"""Quantizers that let diffusers and transformers load quantized components; `register_quantizers` installs them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from diffusers.quantizers import auto as diffusers_auto
from diffusers.quantizers.base import DiffusersQuantizer
from diffusers.quantizers.quantization_config import QuantizationConfigMixin
from torch import Tensor, nn
from transformers.quantizers import auto as transformers_auto
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import AwqConfig as StockAwqConfig

from ..storage.awq_layout import UNSUPPORTED_FORMAT, is_supported_format
from .quantized_modules import FixedScaleModule, replace_modules


class QuantMethod(StrEnum):
    """The names of quantization methods; diffusers expects an enum with a `value`."""

    AWQ = "awq"


def _find_folder(checkpoint_files: Sequence[str | Path] | None) -> Path | None:
    return Path(checkpoint_files[0]).parent if checkpoint_files else None


class AwqConfig(QuantizationConfigMixin):
    """The `quantization_config` of a quantized diffusers component: AutoAWQ's keys and five more.

    Args:
        bits: Bits per weight; only 4 is supported.
        group_size: Number of input channels that share a scale.
        zero_point: Whether quantization is asymmetric.
        version: The layout of the packed weights; only `gemm` is supported.
        modules_to_not_convert: Linear layers that are not quantized.
        extra_config: `bits` and `group_size` of linear layers that have others than these, by name; with 8 bits, a
            layer has one scale for each output.
        embeddings: Embeddings that are stored with 8 bits.
        convolutions: Convolutions that are stored with 8 bits.
        unused_blocks: Blocks whose output is never used. They are not stored and pass their input on.
        unused_modules: Modules that the pipeline never runs. They are not stored.
        rescaled_linears: Linears that read or return other values than in the original. By how much is in a file beside
            the weights, for LoRAs.
        old_keys: `unread` and `dropped`, as earlier releases called `unused_blocks` and `unused_modules`; further keys
            are ignored.

    Raises:
        ValueError: The format is not supported.
    """

    def __init__(
        self,
        bits: int = 4,
        group_size: int = 128,
        zero_point: bool = True,
        version: str = "gemm",
        modules_to_not_convert: list[str] | None = None,
        extra_config: dict[str, dict[str, int]] | None = None,
        embeddings: list[str] | None = None,
        convolutions: list[str] | None = None,
        unused_blocks: list[str] | None = None,
        unused_modules: list[str] | None = None,
        rescaled_linears: list[str] | None = None,
        **old_keys: Any,
    ) -> None:
        if not is_supported_format(bits, version):
            raise ValueError(UNSUPPORTED_FORMAT.format(bits, version))
        self.quant_method = QuantMethod.AWQ
        self.bits, self.group_size, self.zero_point, self.version = bits, group_size, zero_point, version
        self.modules_to_not_convert = modules_to_not_convert or []
        self.extra_config = extra_config or {}
        self.embeddings = embeddings or []
        self.convolutions = convolutions or []
        self.unused_blocks: list[str] = unused_blocks or old_keys.get("unread") or []
        self.unused_modules: list[str] = unused_modules or old_keys.get("dropped") or []
        self.rescaled_linears = rescaled_linears or []

    def to_diff_dict(self) -> dict[str, Any]:
        """What diffusers prints and saves."""
        return dict(self.to_dict())


class DiffusersAwqQuantizer(DiffusersQuantizer):
    """Loads quantized components of diffusers classes."""

    requires_calibration = True
    required_packages: list[str] = []  # noqa: RUF012  diffusers reads the class attribute

    def __init__(self, quantization_config: AwqConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self._file_scales: dict[str, Tensor] = {}
        self._folder: Path | None = None

    def maybe_update_loaded_keys(self, loaded_keys: list[str], checkpoint_files: list[str]) -> list[str]:
        """Remembers where the weights are: with them are the scales for LoRAs."""
        self._folder = _find_folder(checkpoint_files)
        return loaded_keys

    def maybe_update_state_dict(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Keeps the scales as stored: diffusers casts them to the model's dtype before `create_quantized_param`."""
        self._file_scales |= {name: tensor for name, tensor in state_dict.items() if name.endswith(".scales")}
        return state_dict

    def _process_model_before_weight_loading(self, model: nn.Module, **_: Any) -> None:
        replace_modules(model, self.quantization_config, self._folder)

    def _process_model_after_weight_loading(self, model: nn.Module, **_: Any) -> nn.Module:
        self._file_scales.clear()
        return model

    def check_if_quantized_param(self, model: nn.Module, _value: Tensor, param_name: str, *_: Any, **__: Any) -> bool:
        return isinstance(model.get_submodule(param_name.rpartition(".")[0]), FixedScaleModule)

    def check_quantized_param_shape(self, param_name: str, current_param: Tensor, loaded_param: Tensor) -> bool:
        if current_param.shape != loaded_param.shape:
            raise ValueError(
                f"{param_name} has the shape {tuple(loaded_param.shape)} in the file, but "
                f"{tuple(current_param.shape)} according to quantization_config"
            )
        return True

    def create_quantized_param(
        self, model: nn.Module, param_value: Tensor, param_name: str, target_device: torch.device, *_: Any, **__: Any
    ) -> None:
        """Assigns a stored tensor to its buffer, in the dtype of the file."""
        owner, buffer = param_name.rsplit(".", 1)
        value = self._file_scales.pop(param_name, param_value)
        setattr(model.get_submodule(owner), buffer, value.to(target_device))

    @property
    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return False


class TransformersAwqConfig(StockAwqConfig):
    """transformers' own AWQ config with edgepress's keys, which transformers would discard; see `AwqConfig`."""

    def __init__(
        self,
        *args: Any,
        extra_config: dict[str, dict[str, int]] | None = None,
        embeddings: list[str] | None = None,
        convolutions: list[str] | None = None,
        unused_blocks: list[str] | None = None,
        unused_modules: list[str] | None = None,
        rescaled_linears: list[str] | None = None,
        unread: list[str] | None = None,
        dropped: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.extra_config = extra_config or {}
        self.embeddings = embeddings or []
        self.convolutions = convolutions or []
        self.unused_blocks = unused_blocks or unread or []
        self.unused_modules = unused_modules or dropped or []
        self.rescaled_linears = rescaled_linears or []
        super().__init__(*args, **kwargs)


# transformers compares names of classes if a config is given both in the call and by the model.
TransformersAwqConfig.__name__ = StockAwqConfig.__name__


class TransformersAwqQuantizer(HfQuantizer):
    """Loads quantized components of transformers classes, without the CUDA packages of the stock AWQ quantizer."""

    requires_calibration = True

    def validate_environment(self, *_: Any, **__: Any) -> None:
        config: Any = self.quantization_config
        if not is_supported_format(config.bits, str(config.format)):
            raise ValueError(UNSUPPORTED_FORMAT.format(config.bits, str(config.format)))

    def _process_model_before_weight_loading(self, model: nn.Module, **kwargs: Any) -> nn.Module:
        replace_modules(model, self.quantization_config, _find_folder(kwargs.get("checkpoint_files")))
        return model

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return False


def register_quantizers() -> None:
    """Makes diffusers and transformers load components with `quant_method: awq` by the quantizers of this module."""
    diffusers_auto.AUTO_QUANTIZER_MAPPING[QuantMethod.AWQ.value] = DiffusersAwqQuantizer
    diffusers_auto.AUTO_QUANTIZATION_CONFIG_MAPPING[QuantMethod.AWQ.value] = AwqConfig
    transformers_auto.AUTO_QUANTIZER_MAPPING[QuantMethod.AWQ.value] = TransformersAwqQuantizer
    transformers_auto.AUTO_QUANTIZATION_CONFIG_MAPPING[QuantMethod.AWQ.value] = TransformersAwqConfig
