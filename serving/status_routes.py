"""What supervisors and monitors read, and what the page reads of the server."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from ..storage.pipeline_config import PresetConfig
from .metrics import MEDIA_TYPE
from .openapi_schema import describe_errors
from .service import get_service

router = APIRouter()


class Status(BaseModel):
    """Whether the server is as it should be."""

    status: str = Field(description="`ok`, `starting` or `stuck`.")


class PresetAnswer(BaseModel):
    """A preset."""

    steps: int = Field(description="Number of denoising steps.")
    width: int = Field(description="Width in pixels.")
    height: int = Field(description="Height in pixels.")


class ServerAnswer(BaseModel):
    """What the server generates."""

    model: str = Field(description="Name of the artifact.")
    engine: str = Field(description="What runs the graphs.")
    width: int = Field(description="Default width in pixels.")
    height: int = Field(description="Default height in pixels.")
    steps: int = Field(description="Default number of denoising steps.")
    max_side: int = Field(description="Largest width and height in pixels.")
    side_step: int = Field(description="Number of pixels that sides are multiples of.")
    max_steps: int = Field(description="Largest number of steps.")
    max_prompt_characters: int = Field(description="Length of the longest prompt.")
    presets: dict[str, PresetAnswer] = Field(description="Presets by name.")
    queued: int = Field(description="Requests that wait.")


@router.get("/healthz", summary="Whether the server lives", response_model=Status, responses={503: {"model": Status}})
async def get_health(request: Request) -> Response:
    """Answers 200 while the server works, 503 if an image takes far longer than it may."""
    is_alive = get_service(request).is_alive
    return JSONResponse({"status": "ok" if is_alive else "stuck"}, 200 if is_alive else 503)


@router.get("/readyz", summary="Whether the server is ready", response_model=Status, responses={503: {"model": Status}})
async def get_readiness(request: Request) -> Response:
    """Answers 200 as soon as a first image was generated, 503 before."""
    is_ready = get_service(request).is_ready
    return JSONResponse({"status": "ok" if is_ready else "starting"}, 200 if is_ready else 503)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **describe_errors()},
)
async def get_metrics(request: Request) -> Response:
    """Returns counters, times and memory in Prometheus' text format."""
    return Response(get_service(request).metrics.render(), media_type=MEDIA_TYPE)


@router.get("/server", summary="What the server generates", responses=describe_errors())
async def get_server(request: Request) -> ServerAnswer:
    """Returns defaults, limits and presets."""
    service = get_service(request)
    builder, limits = service.builder, service.settings.limits
    height, width = builder.default_size
    presets = {
        name: _describe_preset(preset, preset.size or builder.default_size) for name, preset in builder.presets.items()
    }
    return ServerAnswer(
        model=service.settings.artifact.resolve().name,
        engine=service.engine.pipeline.engine,
        width=width,
        height=height,
        steps=builder.default_steps,
        max_side=builder.max_side,
        side_step=builder.size_multiple,
        max_steps=limits.max_steps,
        max_prompt_characters=limits.max_prompt_characters,
        presets=presets,
        queued=len(service.queue),
    )


def _describe_preset(preset: PresetConfig, size: tuple[int, int]) -> PresetAnswer:
    return PresetAnswer(steps=preset.steps, height=size[0], width=size[1])
