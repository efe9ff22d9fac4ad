"""A quantized model whose scales and floating-point tensors are trained, and its 4-bit codes too where asked for.

A code that moves is trained as a position between codes, in float32, and the model computes with the nearest code; the
gradient passes as if it were not rounded. It begins near the code, towards the weight that the code stands for: codes
that were nearly rounded otherwise are the first to move.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ...numerics.affine import MIN_SCALE
from ...numerics.awq_packing import AwqTensors, pack_nibbles, unpack_awq

SCALES, CODES = ".scales", ".qweight"
START = 0.8  # of the way from a code to its weight where that is at most half a code away, and else to that half


@dataclass(frozen=True)
class TrainableModel:
    """A model in float32 and what is trained of it.

    Attributes:
        module: The model. Its quantized linears have dequantized weights.
        codes: q - zero point of each quantized linear, (out, groups, group size) int8 or int16, by the linear's name.
        parameters: What is trained, float32, by the names of stored tensors: scales as (out, groups), positions of
            codes that move like `codes`, the rest as in the module, whose values they share.
        dtypes: The dtypes that they are stored in.
        zero_points: Those of linears whose codes move, (out, groups, 1) int16, by the linear's name.
        limits: The lowest and the highest code of these linears, zero points included.
    """

    module: nn.Module
    codes: dict[str, Tensor] = field(repr=False)
    parameters: dict[str, Tensor] = field(repr=False)
    dtypes: dict[str, torch.dtype] = field(repr=False)
    zero_points: dict[str, Tensor] = field(repr=False, default_factory=dict)
    limits: dict[str, tuple[int, int]] = field(repr=False, default_factory=dict)

    @classmethod
    def load(cls, module: nn.Module, tensors: Mapping[str, Tensor], frozen: Collection[str] = ()) -> TrainableModel:
        """Puts stored tensors into a module without weights.

        Args:
            module: The model on the meta device. It is changed in place.
            tensors: All its tensors as stored: those of quantized linears as AWQ names them.
            frozen: Names of tensors that are not trained, since the file has codes in their place.
        """
        linears = [name.removesuffix(".qweight") for name in tensors if name.endswith(".qweight")]
        packed = {f"{linear}.{kind}" for linear in linears for kind in (*AwqTensors._fields, "input_scale")}
        floats = {
            name: tensor.float().clone()
            for name, tensor in tensors.items()
            if name not in packed and tensor.is_floating_point()
        }
        codes, scales = {}, {}
        for linear in linears:
            stored = AwqTensors(*(tensors[f"{linear}.{kind}"] for kind in AwqTensors._fields))
            codes[linear], scales[f"{linear}{SCALES}"] = _unpack(stored)
        weights = {
            f"{linear}.weight": torch.empty(len(c), c[0].numel(), device=c.device) for linear, c in codes.items()
        }
        rest = {name: t for name, t in tensors.items() if name not in packed and name not in floats}
        module.load_state_dict(floats | weights | rest, strict=False, assign=True)
        names = [name for name in floats if name not in frozen and _is_parameter(module, name)]
        trained = scales | {name: module.get_parameter(name).data for name in names}
        model = cls(module, codes, trained, {name: tensors[name].dtype for name in trained})
        model.update_weights()
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in trained or name in weights)
        return model

    def move_codes(self, linear: str, stored: AwqTensors, weight: Tensor | None) -> None:
        """Trains the 4-bit codes of a linear, too.

        Args:
            linear: Its name.
            stored: Its tensors as stored.
            weight: What it was quantized from, (out, in); None: its codes begin where they are.
        """
        codes, zero_points = self.codes[linear], unpack_awq(stored).qparams.zero_points[..., None].to(torch.int16)
        absolute = codes + zero_points
        # a code that no weight of the linear has may be one that its format lacks
        self.zero_points[linear], self.limits[linear] = zero_points, (int(absolute.min()), int(absolute.max()))
        positions = codes.float()
        if weight is not None:
            exact = weight.float().view(codes.shape) / self.parameters[f"{linear}{SCALES}"][..., None]
            positions += START * (exact - positions).clamp_(-0.5, 0.5)
        self.parameters[f"{linear}{CODES}"], self.dtypes[f"{linear}{CODES}"] = positions, stored.qweight.dtype

    def list_positions(self) -> list[str]:
        """Lists the names of the positions of codes that move."""
        return [f"{linear}{CODES}" for linear in self.zero_points]

    def update_weights(self) -> None:
        """Computes the weights of quantized linears from their scales, and from the positions of codes that move."""
        for linear, zero_points in self.zero_points.items():
            positions, (low, high) = self.parameters[f"{linear}{CODES}"], self.limits[linear]
            torch.clamp(positions, low - zero_points, high - zero_points, out=positions)
            self.codes[linear].copy_(positions.round())
        for linear, codes in self.codes.items():
            weight = self.module.get_parameter(f"{linear}.weight").data
            torch.mul(codes, self.parameters[f"{linear}{SCALES}"][..., None], out=weight.view(codes.shape))

    def get_gradients(self, module: nn.Module) -> dict[str, Tensor]:
        """Returns the gradients that a replica of the module holds, and removes them from it.

        Those of scales (out, groups) and of positions of codes come from the weights that they are in.
        """
        gradients = {}
        for name, parameter in self.parameters.items():
            linear, moving = name.removesuffix(SCALES), name.removesuffix(SCALES) + CODES
            if linear in self.codes:
                codes = self.codes[linear]
                gradient = _take_gradient(module.get_parameter(f"{linear}.weight")).view(codes.shape)
                gradients[name] = (gradient * codes).sum(-1)
                if moving in self.parameters:
                    gradients[moving] = gradient.mul_(parameter[..., None])
            elif name.removesuffix(CODES) not in self.codes:
                gradients[name] = _take_gradient(module.get_parameter(name))
        return gradients

    def round_parameters(self) -> dict[str, Tensor]:
        """Returns what is trained as it would be stored, in float32."""
        stored = {name: self._to_stored(name, tensor) for name, tensor in self.parameters.items()}
        return {name: tensor.to(torch.float32, copy=True) for name, tensor in stored.items()}

    def set_parameters(self, values: Mapping[str, Tensor]) -> None:
        """Sets what is trained, in place."""
        for name, value in values.items():
            self.parameters[name].copy_(value)
        self.update_weights()

    def to_stored(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns values of what is trained in the dtypes and shapes of the file."""
        stored = {}
        for name, value in values.items():
            linear = name.removesuffix(CODES)
            if linear in self.zero_points:
                codes = (value + self.zero_points[linear]).to(torch.uint8)
                stored[name] = pack_nibbles(codes.flatten(1).T)
            else:
                tensor = self._to_stored(name, value)
                stored[name] = tensor.T.contiguous() if name.removesuffix(SCALES) in self.codes else tensor
        return stored

    def _to_stored(self, name: str, value: Tensor) -> Tensor:
        if name.removesuffix(CODES) in self.zero_points:
            return value.round()
        if name.removesuffix(SCALES) in self.codes:
            value = value.clamp(MIN_SCALE, torch.finfo(torch.float16).max)
        return value.to(self.dtypes[name])


def replicate(module: nn.Module) -> nn.Module:
    """Returns a copy of a module that shares its values, but has gradients and a state of its own."""
    memo: dict[int, object] = {
        id(parameter): nn.Parameter(parameter.detach(), parameter.requires_grad) for parameter in module.parameters()
    }
    memo |= {id(buffer): buffer for buffer in module.buffers()}
    return copy.deepcopy(module, memo)


def _unpack(stored: AwqTensors) -> tuple[Tensor, Tensor]:
    """Returns codes relative to zero points (out, groups, group size), and scales (out, groups) float32."""
    if stored.qweight.dtype == torch.int32:
        codes, (scales, zero_points, *_) = unpack_awq(stored)
    else:  # 8 bits: a byte each
        codes, zero_points, scales = stored.qweight.T, stored.qzeros.T, stored.scales.T.float()
    grouped = codes.reshape(*scales.shape, -1).to(torch.int16) - zero_points[..., None].to(torch.int16)
    fits_int8 = int(grouped.min()) >= -128 and int(grouped.max()) <= 127  # not with 8 bits and zero points
    return grouped.to(torch.int8) if fits_int8 else grouped, scales.contiguous()


def _take_gradient(parameter: nn.Parameter) -> Tensor:
    """Returns the gradient of a parameter, zeros if nothing reached it, and removes it."""
    gradient, parameter.grad = parameter.grad, None
    return torch.zeros_like(parameter) if gradient is None else gradient


def _is_parameter(module: nn.Module, name: str) -> bool:
    owner, _, attribute = name.rpartition(".")
    return attribute in module.get_submodule(owner)._parameters
