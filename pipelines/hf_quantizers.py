"""TODO"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import torch
from diffusers.quantizers.base import DiffusersQuantizer
from diffusers.quantizers.quantization_config import QuantizationConfigMixin
from torch import Tensor, nn
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import AwqConfig as StockAwqConfig

from .quantized_modules import FixedScaleModule, replace_modules

UNSUPPORTED_FORMAT = "only 4 bits in the gemm layout can be read, not {} bits in {!r}"


class QuantMethod(StrEnum):
    """diffusers asks a quantization method for its `.value`."""

    AWQ = "awq"


def _is_supported(bits: int, version: str) -> bool:
    return bits == 4 and version.lower() == "gemm"


class AwqConfig(QuantizationConfigMixin):
    """`quantization_config` of a pressed diffusers component, in AutoAWQ's words and three more.

    embeddings: those in 8 bits. unread: blocks that compute what nobody reads; not stored. dropped: modules that nobody
    runs; not stored either.
    """

    def __init__(
        self,
        bits: int = 4,
        group_size: int = 128,
        zero_point: bool = True,
        version: str = "gemm",
        modules_to_not_convert: list[str] | None = None,
        embeddings: list[str] | None = None,
        unused_blocks: list[str] | None = None,
        unused_modules: list[str] | None = None,
        **_: Any,
    ) -> None:
        if not _is_supported(bits, version):
            raise ValueError(UNSUPPORTED_FORMAT.format(bits, version))
        self.quant_method = QuantMethod.AWQ
        self.bits, self.group_size, self.zero_point, self.version = bits, group_size, zero_point, version
        self.modules_to_not_convert = modules_to_not_convert or []
        self.embeddings, self.unread, self.dropped = embeddings or [], unused_blocks or [], unused_modules or []

    def to_diff_dict(self) -> dict[str, Any]:
        """What diffusers prints and saves of it."""
        return dict(self.to_dict())


class DiffusersAwqQuantizer(DiffusersQuantizer):
    """Reads pressed components of diffusers classes."""

    requires_calibration = True
    required_packages: list[str] = []  # noqa: RUF012  diffusers reads the class attribute

    def __init__(self, quantization_config: AwqConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self._file_scales: dict[str, Tensor] = {}

    def maybe_update_state_dict(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Keeps the file's scales, which diffusers casts to the model's dtype before it hands them over."""
        self._file_scales |= {name: tensor for name, tensor in state_dict.items() if name.endswith(".scales")}
        return state_dict

    def _process_model_before_weight_loading(self, model: nn.Module, **_: Any) -> None:
        replace_modules(model, self.quantization_config)

    def _process_model_after_weight_loading(self, model: nn.Module, **_: Any) -> nn.Module:
        self._file_scales.clear()
        return model

    def check_if_quantized_param(self, model: nn.Module, _value: Tensor, param_name: str, *_: Any, **__: Any) -> bool:
        return isinstance(model.get_submodule(param_name.rpartition(".")[0]), FixedScaleModule)

    def check_quantized_param_shape(self, param_name: str, current_param: Tensor, loaded_param: Tensor) -> bool:
        if current_param.shape != loaded_param.shape:
            raise ValueError(
                f"{param_name} is {tuple(loaded_param.shape)} in the file, where quantization_config means "
                f"{tuple(current_param.shape)}"
            )
        return True

    def create_quantized_param(
        self, model: nn.Module, param_value: Tensor, param_name: str, target_device: torch.device, *_: Any, **__: Any
    ) -> None:
        """Puts a stored tensor in its buffer, in the dtype of the file."""
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
    """transformers' own class, which would forget the keys `embeddings`, `unread` and `dropped`."""

    def __init__(
        self,
        *args: Any,
        embeddings: list[str] | None = None,
        unused_blocks: list[str] | None = None,
        unused_modules: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.embeddings, self.unread, self.dropped = embeddings or [], unused_blocks or [], unused_modules or []
        super().__init__(*args, **kwargs)


class TransformersAwqQuantizer(HfQuantizer):
    """Reads pressed components of transformers classes without the CUDA packages that the stock AWQ loader asks for."""

    requires_calibration = True

    def validate_environment(self, *_: Any, **__: Any) -> None:
        config: Any = self.quantization_config
        if not _is_supported(config.bits, config.format):
            raise ValueError(UNSUPPORTED_FORMAT.format(config.bits, str(config.format)))

    def _process_model_before_weight_loading(self, model: nn.Module, **_: Any) -> nn.Module:
        replace_modules(model, self.quantization_config)
        return model

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return False
