"""Errors as the server answers them: a status and one sentence, in the form that clients of OpenAI's API read."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, Field

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
CODES = {
    400: "malformed_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
    415: "unsupported_media_type",
    422: "invalid_value",
    500: "generation_failed",
    503: "busy",
    504: "timeout",
}
CLIENT_ERRORS = range(400, 500)


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str = Field(description="What is wrong, and what to do.")
    type: str = Field(description="`invalid_request_error`, or `server_error`.")
    code: str = Field(description="The kind of error, such as `busy`.")
    param: str | None = Field(default=None, description="The parameter that is wrong, if it is one.")


class ErrorAnswer(BaseModel):
    """The answer to a request that failed."""

    error: ErrorDetail = Field(description="What went wrong.")


class ApiError(Exception):
    """An error that is answered with a status.

    Args:
        status: The HTTP status.
        message: What is wrong and what to do, in a sentence or two.
        param: The parameter that is wrong, if it is one.
        headers: Headers of the answer.
    """

    def __init__(
        self, status: int, message: str, param: str | None = None, headers: Mapping[str, str] = NO_HEADERS
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.headers = status, message, param, dict(headers)

    def to_content(self) -> dict[str, Any]:
        """The body of the answer."""
        kind = "invalid_request_error" if self.status in CLIENT_ERRORS else "server_error"
        detail = ErrorDetail(message=self.message, type=kind, code=CODES.get(self.status, "error"), param=self.param)
        return ErrorAnswer(error=detail).model_dump()
