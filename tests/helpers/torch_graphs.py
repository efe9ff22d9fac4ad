"""ZImagePipeline in torch, as a whole and graph by graph: the reference of an image pipeline and of a host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ZImageImg2ImgPipeline
from numpy.typing import NDArray
from PIL.Image import Image

from edgepress.models.base.host import GraphRunner
from edgepress.runtime.generation_request import GenerationRequest

GRAPHS = ("text_encoder", "caption", "transformer", "vae_decoder", "vae_encoder")


def generate_with_torch(pipeline: Any, request: GenerationRequest) -> Image:
    """Generates an image with the pipeline of diffusers."""
    height, width = request.size or (pipeline.vae.config.sample_size,) * 2
    start: dict[str, Any] = {}
    if request.image is not None:
        pipeline, start = (
            ZImageImg2ImgPipeline(**pipeline.components),
            {"image": request.image, "strength": request.strength},
        )
        height, width = request.size or (None, None)
    with torch.no_grad():
        images = pipeline(
            request.prompt,
            height=height,
            width=width,
            **start,
            num_inference_steps=request.steps,
            guidance_scale=request.guidance,
            negative_prompt=request.negative_prompt,
            generator=torch.Generator().manual_seed(request.seed),
        ).images
    image: Image = images[0]
    return image


def psnr(image: Image, reference: Image) -> float:
    """PSNR of 8-bit images in decibels."""
    error = np.square(np.asarray(image, np.float64) - np.asarray(reference)).mean()
    return float(10 * np.log10(255**2 / error)) if error else np.inf


class TorchGraphs(GraphRunner):
    """Graphs in torch, in the place of sessions of an engine."""

    engine = f"torch {torch.__version__}"


def make_torch_runner(pipeline: Any) -> TorchGraphs:
    """Makes what runs a graph by name with the components of the pipeline."""
    functions = (_text_encoder, _caption, _transformer, _decoder, _encoder)
    graphs = dict(zip(GRAPHS, functions, strict=True))

    def run(name: str, inputs: dict[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        with torch.no_grad():
            output = graphs[name](pipeline, *(torch.from_numpy(value) for value in inputs.values()))
        return [output.numpy()]

    return TorchGraphs(run)


def write_stub_artifact(pipeline: Path, artifact: Path) -> None:
    """Writes the artifact of a pipeline, with empty files in place of graphs."""
    folder = artifact / "onnx"
    (folder / "tokenizer").mkdir(parents=True)
    for name in ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json"):
        (folder / "tokenizer" / name).write_bytes((pipeline / "tokenizer" / name).read_bytes())
    graphs = {
        name: {"file": f"{name}.onnx"}
        for name in ("text_encoder", "caption", "transformer", "vae_decoder", "vae_encoder")
    }
    for graph in graphs.values():
        (folder / graph["file"]).touch()
    content = {"schema_version": 1, "family": "ZImagePipeline", "graphs": graphs, "host": read_host_configs(pipeline)}
    (folder / "pipeline.json").write_text(json.dumps(content), "utf-8")


def read_host_configs(pipeline: Path) -> dict[str, Any]:
    """Reads the configs that a host is made from."""
    files = {"transformer": "config.json", "vae": "config.json", "scheduler": "scheduler_config.json"}
    return {name: json.loads((pipeline / name / file).read_text("utf-8")) for name, file in files.items()}


def _text_encoder(pipeline: Any, ids: torch.Tensor) -> torch.Tensor:
    output: torch.Tensor = pipeline.text_encoder(ids, output_hidden_states=True).hidden_states[-2]
    return output


def _caption(pipeline: Any, hidden: torch.Tensor, pad: torch.Tensor, *table: torch.Tensor) -> torch.Tensor:
    model = pipeline.transformer
    states = torch.where(pad.bool(), model.cap_pad_token, model.cap_embedder(hidden))
    for layer in model.context_refiner:
        states = layer(states, None, torch.complex(*table)[None])
    return states


def _transformer(
    pipeline: Any,
    patches: torch.Tensor,
    pad: torch.Tensor,
    timestep: torch.Tensor,
    caption: torch.Tensor,
    *tables: torch.Tensor,
) -> torch.Tensor:
    model = pipeline.transformer
    image_angles, caption_angles = torch.complex(*tables[:2])[None], torch.complex(*tables[2:])[None]
    time = model.t_embedder(timestep * model.t_scale)
    states = torch.where(pad.bool(), model.x_pad_token, model.all_x_embedder["2-1"](patches))
    for layer in model.noise_refiner:
        states = layer(states, None, image_angles, time)
    states, angles = torch.cat([states, caption], 1), torch.cat([image_angles, caption_angles], 1)
    for layer in model.layers:
        states = layer(states, None, angles, time)
    output: torch.Tensor = model.all_final_layer["2-1"](states, c=time)[:, : patches.shape[1]]
    return output


def _decoder(pipeline: Any, latents: torch.Tensor) -> torch.Tensor:
    output: torch.Tensor = pipeline.vae.decode(latents).sample
    return output


def _encoder(pipeline: Any, image: torch.Tensor) -> torch.Tensor:
    distribution = pipeline.vae.encode(image).latent_dist
    return torch.cat([distribution.mean, distribution.std], 1)
