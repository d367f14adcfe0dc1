"""Errors as RFC 9457 has them: application/problem+json, a stable code, never a traceback."""

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.types import Scope

MEDIA_TYPE = "application/problem+json"
SCHEMA = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
# What any route may answer, whatever it does.
ALWAYS = (400, 401, 403, 404, 413, 422, 429, 503)

_log = logging.getLogger(__name__)


class Problem(HTTPException):
    """An answer other than success. `code` is for programs, `detail` for the person: what is wrong,
    the value, what is allowed, the remedy. (The framework lets only its own exceptions through
    where a body is read, hence the parent.)"""

    def __init__(
        self,
        status: int,
        code: str,
        title: str,
        detail: str = "",
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail or title, headers)
        self.status = status
        self.code = code
        self.title = title
        self.errors = tuple(errors)
        self.extensions: Mapping[str, Any] = {}  # members beside the usual ones


class FieldError(BaseModel):
    """One thing that is wrong with a request."""

    pointer: str = Field(description="JSON pointer into the body (#/a/0), or `query:name`")
    detail: str


class ProblemBody(BaseModel):
    """What is wrong, for a program and for a person (RFC 9457)."""

    model_config = ConfigDict(
        title="Problem",
        json_schema_extra={
            "example": {
                "type": "/problems/lease-lost",
                "title": "The lease is lost",
                "status": 409,
                "detail": "assignment 01J... went to somebody else; claim another",
                "instance": "/api/v1/assignments/01J.../labels",
                "code": "lease-lost",
                "request_id": "01JZ0000000000000000000000",
                "errors": [],
            }
        },
    )
    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: list[FieldError] = []


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route: these statuses and what any route may answer, as problems."""
    return {
        status: {"description": HTTPStatus(status).phrase, "content": SCHEMA}
        for status in sorted({*ALWAYS, *statuses})
    }


def respond(scope: Scope, problem: Problem) -> Response:
    """The response that says it."""
    content = {
        "type": f"/problems/{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "instance": scope["path"],
        "code": problem.code,
        "request_id": scope.get("state", {}).get("request_id", ""),
        "errors": problem.errors,
        **problem.extensions,
    }
    headers = {"Cache-Control": "no-store", **(problem.headers or {})}
    if problem.status == 401:
        headers.setdefault("WWW-Authenticate", "Bearer")
    return Response(json.dumps(content), problem.status, headers, MEDIA_TYPE)


def unexpected(scope: Scope, error: Exception) -> Response:
    """A fault of ours: its traceback goes to the log, its request id to the caller."""
    request_id = scope.get("state", {}).get("request_id", "")
    _log.error("request %s failed", request_id, exc_info=error)
    detail = f"a fault of the service; its log has the reason under request {request_id}"
    return respond(scope, Problem(500, "internal-error", "Internal server error", detail))


def unavailable(detail: str) -> Problem:
    """503: nothing was done; the caller may ask again."""
    headers = {"Retry-After": "2"}
    return Problem(503, "unavailable", "The service is unavailable", detail, headers=headers)


def install(app: FastAPI) -> None:
    """Every error of the framework becomes a problem."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return respond(request.scope, error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    title = HTTPStatus(error.status_code).phrase
    code = title.lower().replace(" ", "-")
    problem = Problem(error.status_code, code, title, error.detail, headers=error.headers)
    return respond(request.scope, problem)


async def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return respond(request.scope, _invalid(error.errors()))


def _invalid(found: Sequence[Any]) -> Problem:
    """What pydantic found, without the values: they may be secrets."""
    if any(item["type"] == "json_invalid" for item in found):
        return Problem(400, "malformed-json", "The body is not JSON", found[0]["ctx"]["error"])
    if all(item["loc"][0] == "path" for item in found):
        return Problem(404, "not-found", "Not found", "no such thing; check the id in the path")
    errors = [{"pointer": _pointer(item["loc"]), "detail": item["msg"]} for item in found]
    detail = "; ".join(f"{error['pointer']}: {error['detail']}" for error in errors[:3])
    return Problem(422, "invalid-request", "The request is not valid", detail, errors)


def _pointer(location: Sequence[int | str]) -> str:
    place, *rest = location
    if place == "body":
        return "#" + "".join(f"/{part}" for part in rest)
    return f"{place}:{'.'.join(str(part) for part in rest)}"
