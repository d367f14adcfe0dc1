"""Success, as bytes: made inside the transaction, so that it can be kept with what it tells."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel

from services.web.etags import etag


def answer(
    content: BaseModel | Mapping[str, Any] | Sequence[Any] | None,
    status: int = 200,
    revision: int | None = None,
    location: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A JSON response (empty where `content` is None), with ETag and Location where given."""
    found = {"Cache-Control": "no-store", **(headers or {})}
    if revision is not None:
        found["ETag"] = etag(revision)
        found["Cache-Control"] = "private, no-cache"
    if location is not None:
        found["Location"] = location
    if content is None:
        return Response(None, status, found)
    return Response(_encode(content), status, found, "application/json")


def answer_page(
    request: Request, items: Sequence[BaseModel], next_cursor: str | None, total: int | None = None
) -> Response:
    """`{items, next_cursor}`, with the next page's address in the Link header."""
    content: dict[str, Any] = {
        "items": [item.model_dump(mode="json") for item in items],
        "next_cursor": next_cursor,
    }
    if total is not None:
        content["total"] = total
    headers = {}
    if next_cursor is not None:
        # Relative, so that it holds behind any proxy.
        query = request.url.include_query_params(cursor=next_cursor).query
        headers["Link"] = f'<{request.url.path}?{query}>; rel="next"'
    return answer(content, headers=headers)


def _encode(content: BaseModel | Mapping[str, Any] | Sequence[Any]) -> bytes:
    if isinstance(content, BaseModel):
        return content.model_dump_json().encode()
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
