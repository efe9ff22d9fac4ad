"""Opens the GGUF files of a pipeline in full_size.py's shapes with stable-diffusion.cpp, and generates an image.

    python sd_cpp_worker.py OUTPUT TRANSFORMER.gguf TEXT_ENCODER.gguf VAE.safetensors PROMPT SIDE SEED

`benchmarks/interop/full_size_gguf.py` runs this in an environment of its own. The one step takes the whole way from
noise to image. Writes OUTPUT.npy, uint8 (height, width, 3), and OUTPUT.json.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version

import numpy as np
from stable_diffusion_cpp import StableDiffusion

PACKAGE = "stable-diffusion-cpp-python"


def main(output: str, transformer: str, text_encoder: str, vae: str, prompt: str, side: str, seed: str) -> None:
    # Its generator "cpu" draws torch's noise.
    pipeline = StableDiffusion(
        diffusion_model_path=transformer,
        llm_path=text_encoder,
        vae_path=vae,
        vae_decode_only=True,
        n_threads=len(os.sched_getaffinity(0)),
        rng_type="cpu",
        sampler_rng_type="cpu",
    )
    (image,) = pipeline.generate_image(
        prompt, width=int(side), height=int(side), sample_steps=1, sigmas="1.0,0.0", cfg_scale=1.0, seed=int(seed)
    )
    np.save(f"{output}.npy", np.asarray(image.convert("RGB")))
    with open(f"{output}.json", "w", encoding="utf-8") as file:  # noqa: PTH123
        json.dump({"version": version(PACKAGE)}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
