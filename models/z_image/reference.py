"""What Z-Image's components answer, read off diffusers' and transformers' own modules while they run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..base.reference import GoldenInput, GraphOutputs
from .host import pad_to_multiple


@torch.no_grad()
def reference(
    component: str, module: Any, case: GoldenInput, previous_outputs: Mapping[str, NDArray[np.float32]]
) -> GraphOutputs:
    """First outputs of the component's graphs, by their names.

    Args:
        found: the transformer needs the text encoder's.
    """
    if component == "text_encoder":
        return {"text_encoder": _run_text_encoder(module, case)}
    if component == "vae":
        image = _run_decoder(module, case)
        has_encoder = next(module.encoder.parameters(), None) is not None  # pressing may have dropped it
        return {"vae_decoder": image} | ({"vae_encoder": _run_encoder(module, image)} if has_encoder else {})
    return _run_transformer(module, case, torch.from_numpy(previous_outputs["text_encoder"][0, : len(case.ids)]))


def _run_text_encoder(module: Any, case: GoldenInput) -> NDArray[np.float32]:
    """With pads, as the host feeds the graph."""
    ids = torch.from_numpy(pad_to_multiple(case.ids[:, None])[0].T)
    return _to_array(module(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states[-2])


def _run_decoder(module: Any, case: GoldenInput) -> NDArray[np.float32]:
    latents = torch.from_numpy(case.latents) / module.config.scaling_factor + module.config.shift_factor
    return _to_array(module.decode(latents, return_dict=False)[0])


def _run_encoder(module: Any, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of the decoder's own picture in 8 bits."""
    shown = ((torch.from_numpy(image) / 2 + 0.5).clamp(0, 1) * 255).round() / 255
    return _to_array(module.encode(shown * 2 - 1).latent_dist.mode())


def _run_transformer(module: Any, case: GoldenInput, hidden: Tensor) -> GraphOutputs:
    """The velocity has the sign of the transformer, and rows for pads of the image but not for the caption."""
    (final,) = module.all_final_layer.values()
    time = torch.tensor([(1000 - case.timestep) / 1000])
    with _capture_outputs(module.context_refiner[-1], module.noise_refiner[-1], final) as outputs:
        module([torch.from_numpy(case.latents)[0, :, None]], time, [hidden])
    caption, image, velocity = outputs
    return {"caption": _to_array(caption), "transformer": _to_array(velocity[:, : image.shape[1]])}


@contextmanager
def _capture_outputs(*modules: nn.Module) -> Iterator[list[Tensor]]:
    """What modules give when they run, in the order in which they are named; there once all have run."""
    outputs: list[Any] = [None] * len(modules)

    def keep(place: int) -> Any:
        return lambda _module, _inputs, output: outputs.__setitem__(place, output)

    hooks = [module.register_forward_hook(keep(place)) for place, module in enumerate(modules)]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def _to_array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.float().numpy()
    return array
