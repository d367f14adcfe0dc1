"""Images: put under their digest by services, got by whoever may see a group of theirs."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from sqlalchemy.orm import Session

from services.labels import images
from services.labels.schemas.images import ImageView
from services.web.answers import answer
from services.web.auth import Principal, require
from services.web.problems import Problem, problems

router = APIRouter(prefix="/images", tags=["images"])

Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the file's bytes")]
BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
FOR_EVER = "private, max-age=31536000, immutable"


@router.put(
    "/{sha256}",
    operation_id="put_image",
    status_code=201,
    response_model=ImageView,
    responses={200: {"model": ImageView, "description": "It was here"}, **problems(413, 415, 422)},
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
    loss, nothing else of it is."""
    state = request.app.state
    content = await request.body()
    now = state.clock()
    found = await state.database.read(lambda session: images.find(session, sha256))
    if found is not None:
        await asyncio.to_thread(images.check_digest, content, sha256)
        return answer(ImageView.of(found))
    picture = await state.images.take(content, sha256, state.settings.max_image_pixels)
    image, is_new = await state.database.write(
        lambda session: images.store(session, picture, principal.key_id, now)
    )
    location = request.url.path if is_new else None
    return answer(ImageView.of(image), 201 if is_new else 200, location=location)


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
    headers = {"Cache-Control": FOR_EVER, "ETag": f'"{sha256[:32]}-{size}"'}
    is_known = headers["ETag"] in request.headers.get("if-none-match", "")

    def read(session: Session) -> bytes | None:
        images.seen_by(session, sha256, principal, now)
        return None if is_known else state.images.path(sha256, size).read_bytes()

    try:
        content = await state.database.read(read)
    except FileNotFoundError as error:
        detail = f"image {sha256} is known but its file is gone; PUT it again"
        raise Problem(410, "image-removed", "The image was removed", detail) from error
    if content is None:
        return Response(None, 304, headers)
    return Response(content, 200, headers, images.SIZES[size])
