"""What an error of a linear does to the denoisers' outputs: one backward pass, for all formats of all linears.

To first order, an error D of a weight changes the outputs v by J D. With a probe u of independent signs, the mean of
<u, J D>^2 is |J D|^2 (M. F. Hutchinson, A stochastic estimator of the trace of the influence matrix, Communications in
Statistics 19, 1990), and <u, J D> = <G, D>, where G is the gradient of <u, v> with respect to the weight. So a backward
pass for each call of a denoiser, and one for each image through the text encoders, tells the drift of every D.

A weight that is left on disk until its block runs is read again when its gradient passes, so that memory holds the
activations of a call and one block.
"""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...common.memory import malloc_trim
from ...pipelines.sampling import SamplingParams, generate_images
from ...prompts.prompt import Prompt, prompt_seed
from ..calibration.streaming import load_streaming_pipeline
from ..compute_device import CPU, map_tensors
from ..plan import ComponentPlan, QuantizationPlan
from ..threads import single_threaded
from ..tuning.calls import stack_output

PROBE_SEED = 1  # beside that of an image's noise

LoadErrors = Callable[[ComponentPlan, str], Mapping[str, Tensor]]


@dataclass
class Sensitivities:
    """Squared errors of the denoisers' outputs in an image.

    Attributes:
        drifts: To first order, by linear (`component.module`) and format.
        power: The squared outputs.
    """

    drifts: dict[str, dict[str, float]] = field(default_factory=dict)
    power: float = 0.0


@dataclass(frozen=True)
class SensitivityMeasurement:
    """Measures what errors of linears do to the outputs of denoisers.

    Attributes:
        plan: The plan.
        sampling: How images are generated.
        dtype: What the reference computes in.
        load_errors: Returns the errors of a linear's weight, (out, in), by format, for a component and a linear in it.
        device: Where the reference runs.
    """

    plan: QuantizationPlan
    sampling: SamplingParams
    dtype: torch.dtype
    load_errors: LoadErrors
    device: torch.device = CPU

    def iterate(self, prompts: Sequence[Prompt], streams: bool) -> Iterator[Sensitivities]:
        """Generates an image of each prompt with the reference, and yields what errors do to it.

        The results are the same with any number of threads.

        Args:
            prompts: The prompts.
            streams: Whether blocks are left on disk until they run.
        """
        with single_threaded():
            pipeline = load_streaming_pipeline(self.plan, self.dtype, streams, self.device)
        _call_with_gradients(pipeline)
        probe = _Probe(self.load_errors)
        denoisers = self.plan.family.denoisers
        for component in self.plan.components:
            probe.watch_linears(component, getattr(pipeline, component.name), component.name in denoisers)
        for component in (*self.plan.components, *self.plan.unquantized_components) if streams else ():
            probe.watch_weights(component, getattr(pipeline, component.name), self.dtype)
        for denoiser in filter(None, (getattr(pipeline, name) for name in denoisers)):
            denoiser.forward = partial(probe.call_denoiser, denoiser.forward)
        for prompt in prompts:
            with single_threaded():
                sensitivities = probe.follow(pipeline, prompt, self.sampling)
            malloc_trim()
            yield sensitivities


def _call_with_gradients(pipeline: Any) -> None:
    """Lets a pipeline compute gradients when it is called, which diffusers' decorator turns off."""
    cls = type(pipeline)
    call = inspect.unwrap(cls.__call__)

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        with torch.enable_grad():
            return call(self, *args, **kwargs)

    __call__.__signature__ = inspect.signature(call)  # type: ignore[attr-defined]
    pipeline.__class__ = type(cls.__name__, (cls,), {"__call__": __call__, "__module__": cls.__module__})


class _Probe:
    """Follows a pipeline through images.

    Args:
        load_errors: Loads the errors of a linear.
    """

    def __init__(self, load_errors: LoadErrors) -> None:
        self._load_errors = load_errors
        self._generator, self._result = torch.Generator(), Sensitivities()
        # <G, D> by linear and format: since the denoiser was called, and of the text encoders since the image began.
        self._products: dict[bool, dict[str, dict[str, float]]] = {True: {}, False: {}}
        self._gradients: dict[int, tuple[Tensor, Tensor]] = {}  # of what denoisers read from text encoders
        self._weights: dict[int, _StoredWeight] = {}  # loaded now, by the address of their memory

    def follow(self, pipeline: Any, prompt: Prompt, sampling: SamplingParams) -> Sensitivities:
        """Generates an image, and passes gradients back through everything that made it."""
        self._generator.manual_seed(prompt_seed(prompt.id, PROBE_SEED))
        self._result = Sensitivities()
        with torch.autograd.graph.saved_tensors_hooks(self._forget_weight, self._recall_weight):
            generate_images(pipeline, [prompt], sampling, output_type="latent")
            if self._gradients:
                originals, gradients = zip(*self._gradients.values(), strict=True)
                torch.autograd.backward(originals, gradients)
        self._gradients.clear()
        self._square(is_denoiser=False)
        return self._result

    def watch_linears(self, component: ComponentPlan, module: nn.Module, is_denoiser: bool) -> None:
        """Multiplies the gradient of every quantized linear with its errors, once it is known."""
        for block in component.blocks:
            for linear in block.linears:
                hook = partial(self._watch_output, component, linear, is_denoiser)
                module.get_submodule(linear).register_forward_hook(hook)

    def watch_weights(self, component: ComponentPlan, module: nn.Module, dtype: torch.dtype) -> None:
        """Remembers where weights are on disk while their block has them in memory."""
        for path in component.repeated:
            block = module.get_submodule(path)
            block.register_forward_pre_hook(partial(self._enter_block, component, path, dtype))
            block.register_forward_hook(partial(self._leave_block, component, path))

    def call_denoiser(self, compute: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Runs a denoiser and passes the gradient of its output back to its input."""
        leaves: list[tuple[Tensor, Tensor]] = []
        args, kwargs = (map_tensors(value, partial(_detach, leaves=leaves)) for value in (args, kwargs))
        output = compute(*args, **kwargs)
        velocity = stack_output(output)
        signs = torch.randint(0, 2, velocity.shape, generator=self._generator) * 2 - 1
        self._result.power += float(velocity.detach().double().square().sum())
        (velocity.float() * signs.to(velocity.device)).sum().backward()
        self._square(is_denoiser=True)
        for original, leaf in leaves:
            if leaf.grad is not None:
                _, gradient = self._gradients.get(id(original), (original, torch.zeros_like(leaf)))
                self._gradients[id(original)] = original, gradient + leaf.grad
        return map_tensors(output, Tensor.detach)

    def _square(self, is_denoiser: bool) -> None:
        for linear, products in self._products[is_denoiser].items():
            drifts = self._result.drifts.setdefault(linear, dict.fromkeys(products, 0.0))
            for option, product in products.items():
                drifts[option] += product**2
        self._products[is_denoiser].clear()

    def _watch_output(
        self,
        component: ComponentPlan,
        linear: str,
        is_denoiser: bool,
        _: nn.Module,
        args: tuple[Tensor, ...],
        output: Tensor,
    ) -> Tensor:
        inputs = args[0].detach().flatten(0, -2)
        watched = output if output.requires_grad else output.detach().requires_grad_().clone()
        watched.register_hook(partial(self._multiply, component, linear, is_denoiser, inputs))
        return watched

    def _multiply(
        self, component: ComponentPlan, linear: str, is_denoiser: bool, inputs: Tensor, gradient: Tensor
    ) -> None:
        weight_gradient = gradient.detach().flatten(0, -2).T.float() @ inputs.float()
        products = self._products[is_denoiser].setdefault(f"{component.name}.{linear}", defaultdict(float))
        for option, error in self._load_errors(component, linear).items():
            products[option] += float((weight_gradient * error.to(gradient.device)).sum(dtype=torch.float64))

    def _enter_block(self, component: ComponentPlan, path: str, dtype: torch.dtype, block: nn.Module, _: Any) -> None:
        for name, parameter in block.named_parameters():
            if not parameter.is_meta:
                stored = _StoredWeight(component, f"{path}.{name}", dtype, parameter.shape, parameter.device)
                self._weights[parameter.untyped_storage().data_ptr()] = stored

    def _leave_block(self, component: ComponentPlan, path: str, *_: Any) -> None:
        """Forgets a block's addresses, at which there may soon be something else."""
        prefix = f"{path}."
        self._weights = {
            address: stored
            for address, stored in self._weights.items()
            if stored.component is not component or not stored.name.startswith(prefix)
        }

    def _forget_weight(self, tensor: Tensor) -> Any:
        """Returns what autograd stores instead of a tensor: for a block's weight, where it is on disk."""
        stored = self._weights.get(tensor.untyped_storage().data_ptr())
        if stored is None or tensor.numel() != stored.shape.numel():
            return tensor
        return stored, tensor.shape, tensor.stride(), tensor.storage_offset()

    def _recall_weight(self, packed: Any) -> Tensor:
        """Returns the tensor for which `_forget_weight` returned `packed`."""
        if isinstance(packed, Tensor):
            return packed
        stored, shape, stride, offset = packed
        tensor: Tensor = stored.load().as_strided(shape, stride, offset)
        return tensor


@dataclass(frozen=True)
class _StoredWeight:
    """A weight of a block.

    Attributes:
        component: Its component.
        name: Its name in the component.
        dtype: What the reference computes in.
        shape: Its shape.
        device: Where it is used.
    """

    component: ComponentPlan
    name: str
    dtype: torch.dtype
    shape: torch.Size
    device: torch.device

    def load(self) -> Tensor:
        return self.component.checkpoint.load_tensor(self.name).to(self.device, self.dtype)


def _detach(tensor: Tensor, leaves: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Returns a tensor without its history, and notes it where its gradient is needed."""
    if not tensor.requires_grad:
        return tensor
    leaf = tensor.detach().requires_grad_()
    leaves.append((tensor, leaf))
    return leaf
