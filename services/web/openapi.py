"""What the framework does not say by itself in openapi.json: problems, conditions, open routes."""

from typing import Any

from fastapi import FastAPI

from services.web.problems import MEDIA_TYPE, ProblemBody

_TAG = {"type": "string", "examples": ['"r3"']}
IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "schema": _TAG,
    "description": "The ETag of what you have read",
}
IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "schema": _TAG,
    "description": "An ETag: 304 if it is still that",
}


def describe(app: FastAPI) -> None:
    """Make `app.openapi()` tell the whole of it; made once, at the first call."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(generate())
        return app.openapi_schema

    app.openapi = openapi  # FastAPI's documented way to extend it.


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    body = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(body.pop("$defs"))
    schemas["Problem"] = body
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    shared: dict[str, Any] = {}
    for methods in document["paths"].values():
        for operation in methods.values():
            _require_keys(operation)
            _add_conditions(operation)
            _share_problems(operation["responses"], shared)
    components["responses"] = dict(sorted(shared.items()))
    return document


def _require_keys(operation: dict[str, Any]) -> None:
    """To the framework Idempotency-Key is optional, since its lack is a problem of our own."""
    for parameter in operation.get("parameters", []):
        if parameter["name"] == "Idempotency-Key":
            parameter["required"] = True
            parameter["schema"] = {"type": "string", "minLength": 1, "maxLength": 200}


def _add_conditions(operation: dict[str, Any]) -> None:
    """Who may answer 428 wants If-Match; who may answer 304 takes If-None-Match."""
    parameters = operation.setdefault("parameters", [])
    parameters += [IF_MATCH] * ("428" in operation["responses"])
    parameters += [IF_NONE_MATCH] * ("304" in operation["responses"])


def _share_problems(responses: dict[str, Any], shared: dict[str, Any]) -> None:
    """Write each status's problem once, under its name."""
    for status, response in responses.items():
        if list(response.get("content", ())) == [MEDIA_TYPE]:
            name = response["description"].replace(" ", "")
            shared[name] = response
            responses[status] = {"$ref": f"#/components/responses/{name}"}
