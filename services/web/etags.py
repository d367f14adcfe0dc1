"""Optimistic concurrency: strong ETags over a row's revision (RFC 9110 section 13)."""

import hashlib

from fastapi import Request, Response

from services.web.problems import Problem


def etag(revision: int) -> str:
    """The ETag of a row at this revision."""
    return f'"r{revision}"'


def by_content(request: Request, response: Response) -> Response:
    """`response` under the digest of its bytes, for what has no revision; 304 where it is known."""
    response.headers["ETag"] = f'"{hashlib.sha256(bytes(response.body)).hexdigest()[:32]}"'
    response.headers["Cache-Control"] = "private, no-cache"
    return conditional(request, response)


def require_match(request: Request, revision: int) -> None:
    """428 without If-Match, 412 where it names another revision; call it in the transaction that
    changes the row."""
    if "if-match" not in request.headers:
        detail = f"send If-Match: {etag(revision)} (the ETag of what you have read)"
        raise Problem(428, "if-match-missing", "If-Match is missing", detail)
    check_match(request, etag(revision))


def check_match(request: Request, *tags: str) -> None:
    """412 where If-Match is sent and names none of these, the ETags of what is there now; for what
    can be undone, or never changes."""
    wanted = request.headers.get("if-match")
    if wanted is None or (wanted.strip() == "*" and tags) or {*tags} & {*_tags(wanted)}:
        return
    detail = f"it is {'at ' + tags[0] if tags else 'gone'}, you have read {wanted}; read it again"
    raise Problem(412, "etag-mismatch", "It has changed since", detail)


def conditional(request: Request, response: Response) -> Response:
    """`response`, or 304 where If-None-Match shows that the caller has it."""
    wanted = request.headers.get("if-none-match")
    tag = response.headers.get("etag")
    if wanted is None or tag is None:
        return response
    # If-None-Match compares weakly: W/ does not matter.
    if wanted.strip() != "*" and tag not in {item.removeprefix("W/") for item in _tags(wanted)}:
        return response
    headers = {name: response.headers[name] for name in ("etag", "cache-control")}
    return Response(None, 304, headers)


def _tags(header: str) -> list[str]:
    return [item.strip() for item in header.split(",")]
