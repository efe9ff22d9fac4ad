"""Bodies of requests: JSON or a form, read within limits and checked against a schema."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Request
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from starlette.exceptions import HTTPException

from ..common.validation import explain_value
from ..recipes.presets import MAX_STEPS
from ..runtime.image_file import DEFAULT_QUALITY, ImageFormat
from ..storage.strict_json import parse_strict_json
from .errors import ApiError
from .template_store import MAX_NAME

JSON = "application/json"
MULTIPART = "multipart/form-data"
FORMS = (MULTIPART, "application/x-www-form-urlencoded")
MAX_FIELDS = 32  # of a form
IMAGE, MASK = "image", "mask"  # the fields that may be files
FILE_FIELDS = (IMAGE, MASK)
LIST_SUFFIX = "[]"  # of the names of fields that OpenAI's clients send lists in
MAX_SEED = 2**53 - 1  # the largest number that every JSON parser reads exactly
MAX_SIDE = 65_536  # pixels that a body may name at all; how many the server accepts is a setting
Body = TypeVar("Body", bound=BaseModel)


def _read_whole(value: object) -> object:
    """Returns a number such as 8.0 as an integer, as which JSON's numbers count."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


ReadWhole = BeforeValidator(_read_whole)
Side = Annotated[int, Field(ge=1, le=MAX_SIDE), ReadWhole]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED), ReadWhole]
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS), ReadWhole]
Quality = Annotated[int, Field(ge=1, le=100), ReadWhole]
Compression = Annotated[int, Field(ge=0, le=100), ReadWhole]
ImageCount = Annotated[int, Field(ge=1, le=10), ReadWhole]


class GenerateBody(BaseModel):
    """What `POST /generate` takes."""

    model_config = ConfigDict(extra="forbid")

    prompt: str = Field(pattern=r"\S", description="What the image shows.", examples=["a red teapot"])
    negative_prompt: str | None = Field(default=None, description="What guidance leads away from.")
    guidance: float | None = Field(
        default=None, ge=0, le=100, allow_inf_nan=False, description="Scale of classifier-free guidance; 0 for none."
    )
    image: str | None = Field(
        default=None,
        description="An image to start from, in base64 or as a data URL; in a multipart form it can be the file.",
    )
    strength: float | None = Field(
        default=None, gt=0, le=1, allow_inf_nan=False, description="How much of that image is replaced; default: 0.6."
    )
    width: Side | None = Field(default=None, description="Width in pixels.")
    height: Side | None = Field(default=None, description="Height in pixels.")
    seed: Seed | None = Field(default=None, description="Seed of the noise; default: a random one.")
    steps: Steps | None = Field(default=None, description="Number of denoising steps.")
    preset: str | None = Field(default=None, description="Steps and size by name, such as `fast`.")
    template: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9_-]+$",
        max_length=MAX_NAME,
        description="A template that the prompt is put into.",
    )
    format: ImageFormat = Field(default="png", description="The format of the image.")
    quality: Quality = Field(default=DEFAULT_QUALITY, description="Quality of JPEG and WebP.")
    response: Literal["image", "data_url", "events"] = Field(
        default="image",
        description="`image` answers with the file, `data_url` with JSON, and `events` with server-sent events: the "
        "place in the queue, each step, and the image as JSON.",
    )


class ImagesBody(BaseModel):
    """What `POST /v1/images/generations` takes: OpenAI's parameters, of which unknown ones are ignored."""

    model_config = ConfigDict(extra="ignore")

    prompt: str = Field(pattern=r"\S", description="What the images show.", examples=["a red teapot"])
    model: str | None = Field(default=None, description="Ignored: the server has one model.")
    n: ImageCount | None = Field(default=None, description="Number of images.")
    size: str | None = Field(
        default=None,
        pattern=r"^(auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$",
        description="Width and height like `512x768`, or `auto`.",
    )
    quality: Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] | None = Field(
        default=None, description="`low` is the preset `fast`, anything else `quality`, if the artifact has presets."
    )
    response_format: Literal["url", "b64_json"] | None = Field(
        default=None, description="`b64_json`, or the `url` of the image on this server. Default: `b64_json`."
    )
    output_format: ImageFormat | None = Field(default=None, description="The format of the images.")
    output_compression: Compression | None = Field(default=None, description="Quality of JPEG and WebP.")
    background: Literal["auto", "opaque"] | None = Field(default=None, description="Images are opaque.")
    stream: bool | None = Field(default=None, description="Whether to answer with server-sent events.")
    seed: Seed | None = Field(
        default=None,
        description="Not OpenAI's: seed of the first image; each further one has the next.",
    )
    steps: Steps | None = Field(default=None, description="Not OpenAI's: number of denoising steps.")
    template: str | None = Field(
        default=None,
        pattern=r"^[a-z0-9_-]+$",
        max_length=MAX_NAME,
        description="Not OpenAI's: a template for the prompt.",
    )


class EditsBody(ImagesBody):
    """What `POST /v1/images/edits` takes: OpenAI's parameters, of which unknown ones are ignored."""

    image: str = Field(
        min_length=1, description="The file of the image to start from; in base64 or as a data URL if it is a text."
    )
    mask: None = Field(default=None, description="Not supported: the whole image is changed.")
    strength: float | None = Field(
        default=None,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="Not OpenAI's: how much of the image is replaced; default: 0.6.",
    )


def take_image(body: BaseModel) -> str:
    """Returns the image of a body, empty if there is none; the body, which may live long, gives it up."""
    text = getattr(body, IMAGE, None) or ""
    if text:
        setattr(body, IMAGE, "")
    return text


async def read_body(request: Request, schema: type[Body], media_types: Collection[str]) -> Body:
    """Reads the body of a request.

    Args:
        request: The request.
        schema: What the body must be.
        media_types: The media types that are accepted.

    Raises:
        ApiError: The body is of another type, malformed, or not as the schema says.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in media_types:
        accepted = " or ".join(media_types)
        raise ApiError(415, f"The body has the media type '{media_type}'. Send {accepted}.")
    is_json = media_type == JSON
    files = [name for name in FILE_FIELDS if name in schema.model_fields]
    content = await _read_json(request) if is_json else await _read_form(request, files)
    if content.get(MASK) is not None and MASK in files:
        raise ApiError(422, "This server takes no masks: the whole image is changed. Leave mask out.", MASK)
    try:
        return schema.model_validate(content, strict=is_json)  # the values of a form are all texts
    except ValidationError as error:
        details = error.errors()[0]
        raise ApiError(
            422,
            f"{_explain(details, schema)}. Correct the request.",
            str(details["loc"][0]) if details["loc"] else None,
        ) from error


async def _read_json(request: Request) -> dict[str, Any]:
    try:
        body = b"".join([part async for part in request.stream()])  # which the request does not hold on to
        return parse_strict_json(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ApiError(400, "The body is not UTF-8. Send a JSON object in that encoding.") from error
    except ValueError as error:
        raise ApiError(400, f"The body is malformed: {error}. Send a JSON object.") from error


async def _read_form(request: Request, files: Collection[str]) -> dict[str, str]:
    """Fields of a form; those that were left empty are left out, as a browser sends them.

    Args:
        request: The request.
        files: The fields that may be files, which are returned in base64.
    """
    fields: dict[str, str] = {}
    try:
        form = await request.form(max_files=len(files), max_fields=MAX_FIELDS)
    except HTTPException as error:
        if "Too many files" in error.detail:
            raise ApiError(400, f"{_describe_file_limit(len(files))}. Send text.") from error
        if "Too many fields" in error.detail:
            raise ApiError(400, f"The form has more than {MAX_FIELDS} fields. Send fewer.") from error
        raise ApiError(400, "The body is no form. Send it as multipart/form-data, with its boundary.") from error
    for name, value in form.multi_items():
        if (single := name.removesuffix(LIST_SUFFIX)) in files:
            name = single
        if not isinstance(value, str):
            if name not in files:
                raise ApiError(400, f"The field '{name}' is a file. Send text.", name)
            content = await value.read()
            if value.filename and not content:  # a browser sends no name where no file was chosen
                raise ApiError(422, f"The file of the field '{name}' is empty. Send an image.", name)
            value = b64encode(content).decode("ascii")
        if name in fields:
            raise ApiError(400, f"The field '{name}' is given twice. Send it once.", name)
        fields[name] = value
    return {name: value for name, value in fields.items() if value}


def _describe_file_limit(num_files: int) -> str:
    """What is wrong with a form that holds more files than a route takes."""
    return f"The form has more than {num_files} files" if num_files else "A field of the form is a file"


def _explain(details: Any, schema: type[BaseModel]) -> str:
    if details["type"] == "missing":
        return f"{details['loc'][0]} is missing"
    if details["type"] == "string_unicode":  # half of a surrogate pair
        return f"{details['loc'][0]} must be valid Unicode"
    if details["type"] == "extra_forbidden":
        return f"{details['loc'][0]} is unknown; known: {', '.join(schema.model_fields)}"
    return explain_value(details)
