"""The annotator page: a handful of static files, known by name before anybody asks.

The pages hold no data and need no session; everything they show comes from the API. No part of a
request's path reaches the file system: names are looked up in what was read at start.
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from fastapi import APIRouter, HTTPException, Request, Response

router = APIRouter(include_in_schema=False)

MEDIA_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
CONTENT_SECURITY_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",  # no string becomes markup or code, ever
        "trusted-types 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


@dataclass(frozen=True)
class PageFile:
    """A file of the page as it is served."""

    body: bytes
    media_type: str
    etag: str


def read_page_files() -> dict[str, PageFile]:
    """Every file of the page by name."""
    found = {}
    for entry in files("services.labels").joinpath("page").iterdir():
        media_type = MEDIA_TYPES.get(entry.name.rpartition(".")[2])
        if media_type is not None:
            body = entry.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            found[entry.name] = PageFile(body, media_type, etag)
    return found


PAGE_FILES = read_page_files()


def answer(request: Request, name: str) -> Response:
    """The file, or 304 where the browser has it already."""
    file = PAGE_FILES.get(name)
    if file is None:
        raise HTTPException(404, f"the page has no file {name!r}")
    headers = HEADERS | {"ETag": file.etag}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.body, headers=headers, media_type=file.media_type)


@router.get("/label")
async def label_page(request: Request) -> Response:
    """Where people label."""
    return answer(request, "index.html")


@router.get("/login")
async def login_page(request: Request) -> Response:
    """Where an invite becomes a session."""
    return answer(request, "login.html")


@router.get("/label/static/{name}")
async def page_file(request: Request, name: str) -> Response:
    """Scripts, styles and the icon."""
    return answer(request, name)
