"""What the transformer's graphs are compared with, for any number of refiners: also none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from edgepress.models.base.prompt_tokens import PromptTokens
from edgepress.models.base.reference import GoldenInput
from edgepress.models.z_image.reference import compute_reference

WIDTH = 32
NUM_TOKENS, PADDED = 5, 32  # rows of a prompt
LATENTS = (1, 4, 8, 16)  # 4 x 8 patches of 2 x 2


def make_transformer(refiners: int) -> Any:
    from diffusers import ZImageTransformer2DModel

    torch.manual_seed(0)
    module = ZImageTransformer2DModel(
        in_channels=4,
        dim=64,
        n_layers=1,
        n_refiner_layers=refiners,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 12, 12],
        axes_lens=[128, 64, 64],
    )
    for parameter in (module.cap_pad_token, module.x_pad_token):
        torch.nn.init.normal_(parameter)
    return module.eval()


@pytest.mark.slow
@pytest.mark.parametrize("refiners", [0, 2])
@torch.no_grad()
def test_the_outputs_are_those_of_the_transformer(refiners: int) -> None:
    """The prompt's states by hand, and the velocity of a whole run; a row of a patch is its 16 values."""
    module = make_transformer(refiners)
    generator = np.random.default_rng(0)
    latents = generator.standard_normal(LATENTS, np.float32)
    hidden = generator.standard_normal((1, PADDED, WIDTH), np.float32)
    case = GoldenInput({"tokenizer": PromptTokens(np.arange(NUM_TOKENS))}, latents, 400.0)
    outputs = compute_reference("transformer", module, case, {"text_encoder": hidden})

    refined: list[torch.Tensor] = []
    if refiners:
        module.context_refiner[-1].register_forward_hook(lambda _module, _inputs, output: refined.append(output))
    image = torch.from_numpy(latents)[0, :, None]
    (velocity,) = module([image], torch.tensor([0.6]), [torch.from_numpy(hidden[0, :NUM_TOKENS])], return_dict=False)[0]
    if not refiners:
        embedded = module.cap_embedder(torch.from_numpy(hidden[0, :NUM_TOKENS]))
        refined = [torch.cat([embedded, module.cap_pad_token.expand(PADDED - NUM_TOKENS, -1)])[None]]
    np.testing.assert_allclose(outputs["caption"], refined[0].numpy(), rtol=1e-5, atol=1e-6)
    rows = velocity[:, 0].unflatten(2, (8, 2)).unflatten(1, (4, 2)).permute(1, 3, 2, 4, 0).reshape(1, 32, 16)
    np.testing.assert_allclose(outputs["transformer"], rows.numpy(), rtol=1e-5, atol=1e-6)
