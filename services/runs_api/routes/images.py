"""Images of a run, by the digest of their content and by nothing else."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from services.run_store.images import forget_thumbnails
from services.runs_api.library import OpenRun
from services.runs_api.routes.access import WATCHER, Run
from services.runs_api.thumbnails import NoThumbnailError, stored_image, thumbnail
from services.web.auth import Principal
from services.web.problems import Problem, problems

router = APIRouter(prefix="/runs/{run_id}/images", tags=["images"])

BINARY = {"schema": {"type": "string", "format": "binary"}}
FOR_EVER = "private, max-age=31536000, immutable"
WEBP = b"RIFF"
"""What such a file begins with."""


@router.get(
    "/{sha256}",
    operation_id="get_run_image",
    response_class=Response,
    responses={
        200: {"content": dict.fromkeys(("image/png", "image/webp"), BINARY)},
        304: {"description": "You have it"},
        **problems(410),
    },
)
def get_image(
    *,
    _: Principal = WATCHER,
    run: Run,
    request: Request,
    sha256: Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="Of the PNG file's bytes")],
    size: Annotated[
        Literal["orig", "512", "256"], Query(description="Longest side in pixels, at most")
    ] = "orig",
) -> Response:
    """The pixels of an image that the run has stored; 410 for one that was removed since."""
    path = run.image(sha256)
    if path is None:
        detail = f"run {run.id} never stored it; GET .../groups has the digests"
        raise Problem(404, "image-not-found", "No such image", detail)
    headers = {"Cache-Control": FOR_EVER, "ETag": f'"{sha256[:32]}-{size}"'}
    cache = request.app.state.settings.cache
    try:
        path.stat()  # no copy outlives the image, neither ours nor the browser's
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(None, 304, headers)
        if size == "orig":
            content = stored_image(path, sha256)
        else:
            content = thumbnail(path, sha256, int(size), cache)
    except FileNotFoundError as error:
        forget_thumbnails(cache, sha256)
        detail = f"image {sha256} was stored by run {run.id}; {_why(run, sha256)}"
        raise Problem(410, "image-removed", "The image was removed", detail) from error
    except NoThumbnailError as error:
        raise Problem(422, "no-thumbnail", "It cannot be made smaller", str(error)) from error
    media_type = "image/webp" if content.startswith(WEBP) else "image/png"
    return Response(content, 200, headers, media_type)


def _why(run: OpenRun, digest: str) -> str:
    with run.images() as index:
        rule = index.removed_by(digest)
    return f"it was removed by retention ({rule})" if rule else "its file is gone"
