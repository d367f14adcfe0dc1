"""What the framework does not say by itself in openapi.json: problems, conditions, who may ask."""

from typing import Any

from fastapi import FastAPI

from services.web.auth import COOKIE
from services.web.problems import MEDIA_TYPE, ProblemBody

_TAG = {"type": "string", "examples": ['"r3"']}
IF_MATCH = {
    "name": "If-Match",
    "in": "header",
    "required": True,
    "schema": _TAG,
    "description": "The ETag of what you have read",
}
IF_MATCH_OR_NOT = {
    **IF_MATCH,
    "required": False,
    "description": "The ETag of what you have read: 412 if it is no longer that",
}
IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "schema": _TAG,
    "description": "An ETag: 304 if it is still that",
}
# `Authentication` reads them; as dependencies of every route they would be read a second time.
_SCHEMES = {
    "key": {"description": "An API key", "scheme": "bearer", "type": "http"},
    "session": {"in": "cookie", "name": COOKIE, "type": "apiKey"},
}


def describe(app: FastAPI, open_routes: frozenset[tuple[str, str]]) -> None:
    """Make `app.openapi()` tell the whole of it; made once, at the first call."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(generate(), open_routes)
        return app.openapi_schema

    app.openapi = openapi  # FastAPI's documented way to extend it.


def _complete(document: dict[str, Any], open_routes: frozenset[tuple[str, str]]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    body = ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(body.pop("$defs"))
    schemas["Problem"] = body
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    shared: dict[str, Any] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if (method.upper(), path) not in open_routes:
                operation["security"] = [{name: []} for name in _SCHEMES]
            _require_keys(operation)
            _add_conditions(operation)
            _share_problems(operation["responses"], shared)
    components["securitySchemes"] = _SCHEMES
    components["responses"] = dict(sorted(shared.items()))
    return document


def _require_keys(operation: dict[str, Any]) -> None:
    """To the framework Idempotency-Key is optional, since its lack is a problem of our own."""
    for parameter in operation.get("parameters", []):
        if parameter["name"] == "Idempotency-Key":
            parameter["required"] = True
            parameter["schema"] = {"type": "string", "minLength": 1, "maxLength": 200}


def _add_conditions(operation: dict[str, Any]) -> None:
    """Who may answer 428 wants If-Match, who may answer 412 takes it; who may answer 304 takes
    If-None-Match."""
    parameters, responses = operation.setdefault("parameters", []), operation["responses"]
    if "412" in responses:
        parameters.append(IF_MATCH if "428" in responses else IF_MATCH_OR_NOT)
    parameters += [IF_NONE_MATCH] * ("304" in responses)


def _share_problems(responses: dict[str, Any], shared: dict[str, Any]) -> None:
    """Write each status's problem once, under its name."""
    for status, response in responses.items():
        if list(response.get("content", ())) == [MEDIA_TYPE]:
            name = response["description"].replace(" ", "")
            shared[name] = response
            responses[status] = {"$ref": f"#/components/responses/{name}"}
