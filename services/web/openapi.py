"""What the framework does not say by itself in openapi.json: problems, and the open routes."""

from typing import Any

from fastapi import FastAPI

from services.web.problems import ProblemBody


def describe(app: FastAPI) -> None:
    """Make `app.openapi()` tell the schema of errors; made once, at the first call."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(generate())
        return app.openapi_schema

    app.openapi = openapi  # FastAPI's documented way to extend it.


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    body = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(body.pop("$defs"))
    schemas["Problem"] = body
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    return document
