"""The application: the service behind it, its routes, and how errors are answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from .. import __version__
from ..common.errors import UserError
from ..common.validation import explain_value
from ..runtime.presets import load_presets
from ..storage.preflight import check_results_folder
from . import generate_routes, openai_routes, output_routes, page_routes, status_routes, template_routes
from .engine import Engine
from .errors import ApiError
from .jobs import JobQueue
from .metrics import Metrics
from .middleware import AccessLog, Guard
from .openapi_limits import add_limits
from .output_store import OutputStore
from .request_builder import RequestBuilder
from .service import ClientLeftError, Service
from .settings import ServerSettings
from .template_store import TemplateStore

CLIENT_LEFT = 499  # nginx's status for it; nobody reads the answer, but the log does
MODULES = (generate_routes, openai_routes, template_routes, output_routes, status_routes, page_routes)


def open_service(settings: ServerSettings) -> Service:
    """Opens the artifact and the stores of a server.

    Raises:
        UserError: The artifact cannot be run, there is not enough memory, or the folder of the state cannot be used.
    """
    check_results_folder(settings.state, "--state")
    metrics = Metrics()
    engine = Engine(
        settings.artifact, settings.low_memory, settings.providers, metrics, settings.threads, settings.provenance
    )
    try:
        settings.state.mkdir(parents=True, exist_ok=True)
        outputs = OutputStore(settings.state / "outputs", settings.limits.keep_images, settings.limits.keep_hours)
    except OSError as error:
        raise UserError(f"Cannot use the folder {settings.state} ({error.strerror}). Give another --state.") from error
    templates = TemplateStore(settings.state / "templates.sqlite")
    queue = JobQueue(engine.work, settings.limits.max_waiting)
    presets = load_presets(settings.artifact)
    pipeline = engine.pipeline
    if pipeline.takes_images:
        settings = replace(settings, limits=replace(settings.limits, max_body_bytes=settings.limits.max_image_bytes))
    builder = RequestBuilder(
        pipeline.check_request,
        pipeline.image_sizes,
        pipeline.size_multiple,
        engine.default_size,
        settings.limits,
        templates,
        presets,
        pipeline.takes_images,
    )
    service = Service(settings, engine, queue, templates, outputs, builder, metrics)
    metrics.watch("queued", "Requests that wait.", lambda: len(queue))
    metrics.watch("ready", "1 as soon as an image was generated.", lambda: service.is_ready)
    return service


class _Application(FastAPI):
    """An application whose description has the limits of its service."""

    def __init__(self, service: Service, **options: Any) -> None:
        super().__init__(**options)
        self.state.service = service
        self._builder = service.builder

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI description."""
        if self.openapi_schema is None:
            add_limits(super().openapi(), self._builder)  # which keeps it
        description: dict[str, Any] = super().openapi()
        return description


def create_app(service: Service) -> FastAPI:
    """Creates the application of a service."""
    app = _Application(
        service,
        title="edgepress",
        version=__version__,
        description="Generates images from an artifact.",
        docs_url=None,  # these pages load scripts from the network
        redoc_url=None,
        middleware=[Middleware(AccessLog, service.metrics), Middleware(Guard, service.settings)],
    )
    for module in MODULES:
        app.include_router(module.router)
    app.add_exception_handler(ApiError, _answer_api_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(UserError, _answer_user_error)
    app.add_exception_handler(ClientLeftError, _answer_nobody)
    return app


def _answer(error: ApiError) -> Response:
    return JSONResponse(error.to_content(), error.status, error.headers)


async def _answer_api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return _answer(error)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    """Answers an unknown path, another method, or a form that Starlette cannot read."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if "Allow" in headers:  # Starlette names the methods of the first route with this path only
        headers["Allow"] = ", ".join(_list_methods(request))
    messages: Mapping[int, str] = {
        404: f"There is nothing at {request.url.path[:200]}. See /openapi.json.",
        405: f"{request.url.path[:200]} does not take {request.method}. See /openapi.json.",
    }
    message = messages.get(error.status_code, f"The body is malformed ({error.detail}). Correct it.")
    return _answer(ApiError(error.status_code, message, headers=headers))


def _list_methods(request: Request) -> list[str]:
    """The methods that a path takes."""
    routes = (route for module in MODULES for route in module.router.routes if isinstance(route, APIRoute))
    path = request.scope["path"]
    return sorted({method for route in routes if route.path_regex.match(path) for method in route.methods or ()})


async def _answer_validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    details = error.errors()[0] | {"loc": error.errors()[0]["loc"][1:]}
    return _answer(ApiError(422, f"{explain_value(details)}. Correct the request."))


async def _answer_user_error(_: Request, error: Exception) -> Response:
    """Answers what the server's owner must change, such as a full disk."""
    return _answer(ApiError(500, str(error)))


async def _answer_nobody(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_LEFT)
