"""Registers the INT4 loader: after `import edgepress.loading`, diffusers and transformers read pressed components.

A pressed component's config.json says `quantization_config: {quant_method: awq, ...}`. Its linears are replaced by
`Int4Linear`, which computes with PyTorch's own int4 kernels: tinygemm on CUDA, the packed int4 product on a CPU, and by
dequantization wherever the kernel does not take the shape or the dtype.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.quantizers import auto as diffusers_auto
from diffusers.quantizers.base import DiffusersQuantizer
from diffusers.quantizers.quantization_config import QuantizationConfigMixin
from torch import Tensor, nn
from transformers.quantizers import auto as transformers_auto
from transformers.quantizers.base import HfQuantizer

from .grid import Codes, dequantize
from .int4 import AwqTensors, unpack_awq

KERNEL_ZERO = 8  # the code that the kernels take for 0
KERNEL_GROUPS = (32, 64, 128, 256)
UNREADABLE = "only 4 bits in the gemm layout can be read, not {} bits in {!r}"


class Method(StrEnum):
    """diffusers asks a quantization method for its `.value`."""

    AWQ = "awq"


class Int4Linear(nn.Module):
    """A linear layer whose weight is stored in AutoAWQ's GEMM layout.

    The buffers are what the file holds; the int4 kernel's own packing is made at its first call on a device and kept
    beside them. `dequantized()` gives the weight (out, in).
    """

    qweight: Tensor
    qzeros: Tensor
    scales: Tensor
    bias: Tensor | None

    def __init__(self, in_features: int, out_features: int, group_size: int, bias: bool) -> None:
        super().__init__()
        self.in_features, self.out_features, self.group_size = in_features, out_features, group_size
        groups = in_features // group_size
        self.register_buffer("qweight", torch.zeros(in_features, out_features // 8, dtype=torch.int32))
        self.register_buffer("qzeros", torch.zeros(groups, out_features // 8, dtype=torch.int32))
        self.register_buffer("scales", torch.zeros(groups, out_features, dtype=torch.float16))
        self.register_buffer("bias", torch.zeros(out_features) if bias else None)
        self._kernel: tuple[torch.device, torch.dtype, Tensor, Tensor] | None = None

    def codes(self) -> Codes:
        return unpack_awq(AwqTensors(self.qweight, self.qzeros, self.scales))

    def dequantized(self) -> Tensor:
        """The weight (out, in) in float32."""
        return dequantize(self.codes())

    def forward(self, x: Tensor) -> Tensor:
        out = self._multiply(x) if self._has_kernel(x) else F.linear(x, self.dequantized().to(x.dtype))
        return out if self.bias is None else out + self.bias.to(x.dtype)

    def _has_kernel(self, x: Tensor) -> bool:
        """Only bfloat16 has a fast int4 product: on a CPU where out % 16 == 0, on CUDA where in % 128 == 0 (tinygemm).

        The CPU's product in float32 takes any shape too, but took 46 to 70 times as long as a dense product.
        """
        if x.dtype != torch.bfloat16 or self.group_size not in KERNEL_GROUPS:
            return False
        if x.device.type == "cpu":
            return self.out_features % 16 == 0
        return x.device.type == "cuda" and self.out_features % 8 == 0 and self.in_features % 128 == 0

    def _multiply(self, x: Tensor) -> Tensor:
        weight, scale_and_zero = self._packed(x.device, x.dtype)
        flat = x.reshape(-1, self.in_features).contiguous()
        if x.device.type == "cpu":
            product = torch.ops.aten._weight_int4pack_mm_for_cpu
        else:
            product = torch.ops.aten._weight_int4pack_mm
        out: Tensor = product(flat, weight, self.group_size, scale_and_zero)
        return out.reshape(*x.shape[:-1], self.out_features)

    def _packed(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The kernel's operands: packed codes, and (groups, out, 2) of scale and (8 - z) * scale."""
        if self._kernel is None or self._kernel[:2] != (device, dtype):
            codes, grid = self.codes()
            offset = (KERNEL_ZERO - grid.zeros.float()) * grid.scales
            scale_and_zero = torch.stack([grid.scales.T, offset.T], dim=-1).to(dtype).contiguous()
            self._kernel = (device, dtype, _pack_for(device, codes), scale_and_zero)
        return self._kernel[2], self._kernel[3]

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, group_size={self.group_size}"


def _pack_for(device: torch.device, codes: Tensor) -> Tensor:
    """The codes (out, in) as the device's int4 kernel wants them."""
    packed: Tensor
    if device.type == "cpu":
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.to(torch.int32), 1)
    else:
        pairs = (codes[:, ::2] << 4) | codes[:, 1::2]
        packed = torch.ops.aten._convert_weight_to_int4pack(pairs.contiguous(), 8)
    return packed


def replace_linears(model: nn.Module, group_size: int, kept: list[str]) -> None:
    """Puts an `Int4Linear` in the place of every linear that `kept` does not name, in place."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name not in kept:
            parent, _, child = name.rpartition(".")
            new = Int4Linear(module.in_features, module.out_features, group_size, module.bias is not None)
            setattr(model.get_submodule(parent), child, new)


def _readable(bits: int, version: str) -> bool:
    return bits == 4 and version.lower() == "gemm"


class AwqConfig(QuantizationConfigMixin):
    """`quantization_config` of a pressed diffusers component, in AutoAWQ's words."""

    def __init__(
        self,
        bits: int = 4,
        group_size: int = 128,
        zero_point: bool = True,
        version: str = "gemm",
        modules_to_not_convert: list[str] | None = None,
        **_: Any,
    ) -> None:
        if not _readable(bits, version):
            raise ValueError(UNREADABLE.format(bits, version))
        self.quant_method = Method.AWQ
        self.bits, self.group_size, self.zero_point, self.version = bits, group_size, zero_point, version
        self.modules_to_not_convert = modules_to_not_convert or []

    def to_diff_dict(self) -> dict[str, Any]:
        """What diffusers prints and saves of it."""
        return dict(self.to_dict())


class DiffusersAwqQuantizer(DiffusersQuantizer):
    """Reads pressed components of diffusers classes."""

    requires_calibration = True
    required_packages: list[str] = []  # noqa: RUF012  diffusers reads the class attribute

    def __init__(self, quantization_config: AwqConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        self._stored: dict[str, Tensor] = {}

    def maybe_update_state_dict(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        """Keeps the file's scales, which diffusers casts to the model's dtype before it hands them over."""
        self._stored |= {name: tensor for name, tensor in state_dict.items() if name.endswith(".scales")}
        return state_dict

    def _process_model_before_weight_loading(self, model: nn.Module, **_: Any) -> None:
        config = self.quantization_config
        with torch.device("meta"):
            replace_linears(model, config.group_size, config.modules_to_not_convert)

    def _process_model_after_weight_loading(self, model: nn.Module, **_: Any) -> nn.Module:
        self._stored.clear()
        return model

    def check_if_quantized_param(self, model: nn.Module, _value: Tensor, param_name: str, *_: Any, **__: Any) -> bool:
        return isinstance(model.get_submodule(param_name.rpartition(".")[0]), Int4Linear)

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
        stored = self._stored.pop(param_name, param_value)
        setattr(model.get_submodule(owner), buffer, stored.to(target_device))

    @property
    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return False


class TransformersAwqQuantizer(HfQuantizer):
    """Reads pressed components of transformers classes without the CUDA packages that the stock AWQ loader asks for."""

    requires_calibration = True

    def validate_environment(self, *_: Any, **__: Any) -> None:
        config: Any = self.quantization_config
        if not _readable(config.bits, config.format):
            raise ValueError(UNREADABLE.format(config.bits, str(config.format)))

    def _process_model_before_weight_loading(self, model: nn.Module, **_: Any) -> nn.Module:
        config: Any = self.quantization_config
        with torch.device("meta"):
            replace_linears(model, config.group_size, config.modules_to_not_convert or [])
        return model

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return False


diffusers_auto.AUTO_QUANTIZER_MAPPING[Method.AWQ.value] = DiffusersAwqQuantizer
diffusers_auto.AUTO_QUANTIZATION_CONFIG_MAPPING[Method.AWQ.value] = AwqConfig
transformers_auto.AUTO_QUANTIZER_MAPPING[Method.AWQ.value] = TransformersAwqQuantizer
