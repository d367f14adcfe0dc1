"""Images: put under their digest by services, got by whoever may see a group of theirs."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy.orm import Session

from services.labels import images, retention
from services.labels.audit import record_audit
from services.labels.schemas.images import ImageView
from services.labels.store.tables import Image
from services.web import etags
from services.web.answers import answer
from services.web.auth import Principal, require
from services.web.problems import Problem, problems

router = APIRouter(prefix="/images", tags=["images"])

Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the file's bytes")]
BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
CHANGE: dict[str, Any] = {
    "status_code": 204,
    "response_class": Response,
    "responses": problems(412),
}
"""What every route says that changes a picture and answers nothing."""
FOR_EVER = "private, max-age=31536000, immutable"


@router.put(
    "/{sha256}",
    operation_id="put_image",
    status_code=201,
    response_model=ImageView,
    responses={
        200: {"model": ImageView, "description": "It was here"},
        **problems(410, 413, 415, 422),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": dict.fromkeys(images.FORMATS.values(), BINARY),
        }
    },
)
async def put_image(
    sha256: Digest, request: Request, principal: Principal = require("service", "admin")
) -> Response:
    """Upload a PNG, JPEG or WebP file, up to 20 MiB and 64 megapixels. Its pixels are kept without
    loss, nothing else of it is. One that an admin removed is 410, but an admin brings it back."""
    state = request.app.state
    content = await request.body()
    now, quota = state.clock(), (sha256, principal.key_id, len(content), state.settings)

    def look(session: Session) -> Image | None:
        images.check_withdrawn(session, sha256, principal)
        retention.check_quota(session, *quota)
        found = images.find(session, sha256)
        return found if found is not None and state.images.has(sha256) else None

    def store(session: Session) -> tuple[Image, bool]:
        if images.check_withdrawn(session, sha256, principal, lock=True):
            record_audit(session, principal, "image.restore", sha256, None, None, now)
        retention.check_quota(session, *quota)
        stored = images.store(session, picture, principal.key_id, now)
        if not state.images.has(sha256):  # it was being removed while we wrote it
            state.images.add(picture)
        return stored

    found = await state.database.read(look)
    if found is not None:
        await asyncio.to_thread(images.check_digest, content, sha256)
        if state.settings.image_days is not None:
            await state.database.write(lambda session: retention.touch(session, sha256, now))
        return answer(ImageView.of(found))
    picture = await state.images.take(content, sha256, state.settings.max_image_pixels)
    try:
        image, is_new = await state.database.write(store)
    except Problem:
        await _delete_files(request, sha256)
        raise
    location = request.url.path if is_new else None
    return answer(ImageView.of(image), 201 if is_new else 200, location=location)


@router.delete("/{sha256}", operation_id="remove_image", **CHANGE)
async def remove_image(
    sha256: Digest, request: Request, principal: Principal = require("admin")
) -> Response:
    """Take a picture away from everybody, for good: its address is 410 from then on, to those who
    send it too, open groups that show it are retired, labels on it stay."""
    state = request.app.state
    now = state.clock()

    def withdraw(session: Session, image: Image) -> None:
        if retention.withdraw(session, image, now, state.settings):
            record_audit(session, principal, "image.remove", sha256, None, None, now)

    done = await _change(request, sha256, withdraw)
    await _delete_files(request, sha256)
    return done


@router.put("/{sha256}/pin", operation_id="pin_image", **CHANGE)
async def pin_image(
    sha256: Digest, request: Request, _: Principal = require("service", "admin")
) -> Response:
    """Keep a picture however old it gets, such as those of an evaluation."""
    return await _change(request, sha256, lambda _, image: setattr(image, "pinned", True))


@router.delete("/{sha256}/pin", operation_id="unpin_image", **CHANGE)
async def unpin_image(
    sha256: Digest, request: Request, _: Principal = require("service", "admin")
) -> Response:
    """Let a picture go with those of its age."""
    return await _change(request, sha256, lambda _, image: setattr(image, "pinned", False))


@router.get(
    "/{sha256}",
    operation_id="get_image",
    response_class=Response,
    responses={
        200: {"content": dict.fromkeys(sorted({*images.SIZES.values()}), BINARY)},
        304: {"description": "You have it"},
        **problems(410),
    },
)
async def get_image(
    sha256: Digest,
    request: Request,
    size: Annotated[
        Literal["orig", "512", "256"], Query(description="Longest side in pixels, at most")
    ] = "orig",
    principal: Principal = require(),
) -> Response:
    """An image's pixels: a person sees those leased to them or labelled by them."""
    state = request.app.state
    now = state.clock()
    headers = {"Cache-Control": FOR_EVER, "ETag": _etag(sha256, size)}
    is_known = headers["ETag"] in request.headers.get("if-none-match", "")

    def read(session: Session) -> bytes | None:
        images.seen_by(session, sha256, principal, now)
        return None if is_known else state.images.path(sha256, size).read_bytes()

    try:
        content = await state.database.look(read)
    except FileNotFoundError as error:
        detail = f"image {sha256} is known but its file is gone; PUT it again"
        raise Problem(410, "image-removed", "The image was removed", detail) from error
    if content is None:
        return Response(None, 304, headers)
    return Response(content, 200, headers, images.SIZES[size])


def _etag(sha256: str, size: str) -> str:
    return f'"{sha256[:32]}-{size}"'


async def _change(
    request: Request, sha256: str, change: Callable[[Session, Image], None]
) -> Response:
    """404 where nobody ever put it. A picture never changes, so that If-Match tells whether it is
    here, in whatever size it was read."""

    def operation(session: Session) -> None:
        image = retention.find(session, sha256)
        sizes = images.SIZES if image.removed_at is None else ()
        etags.check_match(request, *(_etag(sha256, size) for size in sizes))
        change(session, image)

    await request.app.state.database.write(operation)
    return answer(None, 204)


async def _delete_files(request: Request, sha256: str) -> None:
    state = request.app.state
    await state.database.write(
        lambda session: retention.delete_files(session, state.images, [sha256])
    )
