"""Expected outputs of Z-Image's graphs, computed by the modules of diffusers and transformers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..base.pipeline_observer import encode_pixels, round_pixels
from ..base.reference import GoldenInput, GraphOutputs
from .host import pad_to_multiple


@torch.no_grad()
def compute_reference(
    component: str, module: Any, case: GoldenInput, previous_outputs: Mapping[str, NDArray[np.float32]]
) -> GraphOutputs:
    """Computes the first outputs of a component's graphs.

    Args:
        component: Name of the component.
        module: The component.
        case: What the host is given.
        previous_outputs: Outputs of earlier components; the transformer needs those of the text encoder.

    Returns:
        Outputs by graph name.
    """
    if component == "text_encoder":
        return {"text_encoder": _run_text_encoder(module, case)}
    if component == "vae":
        image = _run_decoder(module, case)
        has_encoder = next(module.encoder.parameters(), None) is not None  # quantization may have removed it
        outputs = {"vae_decoder": image}
        if has_encoder:
            outputs["vae_encoder"] = _to_array(encode_pixels(module, round_pixels(torch.from_numpy(image))))
        return outputs
    hidden = torch.from_numpy(previous_outputs["text_encoder"][0, : len(case.tokens["tokenizer"].ids)])
    return _run_transformer(module, case, hidden)


def _run_text_encoder(module: Any, case: GoldenInput) -> NDArray[np.float32]:
    """Runs the text encoder on padded ids, as the host pads them."""
    ids = torch.from_numpy(pad_to_multiple(case.tokens["tokenizer"].ids[:, None])[0].T)
    return _to_array(module(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states[-2])


def _run_decoder(module: Any, case: GoldenInput) -> NDArray[np.float32]:
    latents = torch.from_numpy(case.latents) / module.config.scaling_factor + module.config.shift_factor
    return _to_array(module.decode(latents, return_dict=False)[0])


def _run_transformer(module: Any, case: GoldenInput, hidden: Tensor) -> GraphOutputs:
    """Runs the transformer.

    The velocity has the sign of the transformer's output, and rows for the pads of the image but not for the prompt.
    There may be no refiners and no layers: what is captured is there in any case.
    """
    (final,) = module.all_final_layer.values()
    first = next(iter(module.layers), final)  # of what reads the rows of the image, followed by those of the prompt
    time = torch.tensor([(1000 - case.timestep) / 1000])
    with _capture_calls(module.cap_embedder, first, final) as calls:
        module([torch.from_numpy(case.latents)[0, :, None]], time, [hidden])
    (_, embedded), (states, _), (_, velocity) = calls
    num_patches = states.shape[1] - len(embedded)
    return {"caption": _to_array(states[:, num_patches:]), "transformer": _to_array(velocity[:, :num_patches])}


@contextmanager
def _capture_calls(*modules: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collects the first argument and the output of modules when they run, in the order of the modules."""
    calls: list[Any] = [None] * len(modules)

    def make_hook(index: int) -> Any:
        return lambda _module, inputs, output: calls.__setitem__(index, (inputs[0], output))

    hooks = [module.register_forward_hook(make_hook(index)) for index, module in enumerate(modules)]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _to_array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.float().numpy()
    return array
