"""An OpenAI-compatible chat endpoint: one image and one question a request, a completion back."""

import base64
import io
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from services.reward.bounded_calls import Reply, read_reply

MAX_RESPONSE_BYTES = 4_000_000


@dataclass(frozen=True)
class ChatEndpoint:
    """Where to ask, and as whom."""

    url: str
    """Of the `chat/completions` resource."""
    api_key: str = field(repr=False)
    """Bearer token; empty sends none."""

    async def send(self, http: httpx.AsyncClient, body: dict[str, Any]) -> Reply:
        """Post one request; no redirect is followed."""
        headers = {"accept-encoding": "identity"}
        if self.api_key:
            headers["authorization"] = f"Bearer {self.api_key}"
        async with http.stream("POST", self.url, json=body, headers=headers) as response:
            return await read_reply(response, MAX_RESPONSE_BYTES)


def chat_url(base_url: str) -> str:
    """The chat resource under a base URL such as http://127.0.0.1:8000/v1; ValueError if no URL."""
    try:
        url = httpx.URL(base_url)
    except (httpx.InvalidURL, TypeError) as error:
        raise ValueError(f"option base_url={base_url!r} is no URL ({error})") from error
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise ValueError(
            f"option base_url={base_url!r}: write it as http://host:port/v1, without a query"
        )
    if url.userinfo:
        raise ValueError("option base_url holds a user or password; use api_key_env instead")
    return base_url.rstrip("/") + "/chat/completions"


def user_message(image: NDArray[np.uint8], text: str) -> dict[str, Any]:
    """What a person would say: an RGB image (H, W, 3) uint8, then the text."""
    picture = {"type": "image_url", "image_url": {"url": png_data_url(image)}}
    return {"role": "user", "content": [picture, {"type": "text", "text": text}]}


def png_bytes(image: NDArray[np.uint8]) -> bytes:
    """An RGB image (H, W, 3) uint8 as a PNG file, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


def png_data_url(image: NDArray[np.uint8]) -> str:
    """An RGB image (H, W, 3) uint8 as a data URL that loses nothing."""
    return "data:image/png;base64," + base64.b64encode(png_bytes(image)).decode()
