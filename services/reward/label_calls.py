"""Calls of the label service that go on behind their caller: each is a future, and every one ends.

Who waits for one waits as long as they like and looks again later: a service that hangs holds up
its own answer and nothing else.
"""

import io
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from torch import Tensor

from services.label_client.client import LabelClient
from services.label_client.errors import LabelServiceError, LabelServiceUnreachableError
from services.label_client.models import ReceiptResult, RewardMessage

MAX_MESSAGES = 64
MAX_SENDING = 4
"""Groups on their way at once."""
MAX_UPLOADS = 16
"""Their images on their way at once."""
LISTENERS = 2
"""One hears, the other acknowledges."""


@dataclass
class Heard:
    """What one look at the service brought, as far as it came."""

    messages: list[RewardMessage] = field(default_factory=list)
    foreign: list[RewardMessage] = field(default_factory=list)
    """Given back unused, so that they become dead letters, where an admin sees them."""
    told: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    """Aggregates by group id; `lost` is the state of one that the service does not know."""
    fault: Exception | None = None
    """Why there is no more."""


class LabelCalls:
    """Threads that talk to the service, over one client."""

    def __init__(self, connect: Callable[[Callable[[float], Any]], LabelClient]) -> None:
        """`connect` makes the client, given how to pause between attempts."""
        self._closed = threading.Event()
        self._client = connect(self._closed.wait)
        self._senders = ThreadPoolExecutor(MAX_SENDING, thread_name_prefix="send")
        self._uploads = ThreadPoolExecutor(MAX_UPLOADS, thread_name_prefix="upload")
        self._listeners = ThreadPoolExecutor(LISTENERS, thread_name_prefix="hear")

    def put(
        self, name: str, images_G3HW: Tensor, body: Callable[[Sequence[str]], Mapping[str, Any]]
    ) -> "Future[Exception | None]":
        """Send a group's images (uint8), then the group by what `body` makes of their digests. The
        future has what went wrong, if anything did."""
        return self._senders.submit(self._put, name, images_G3HW, body)

    def listen(
        self,
        run_id: str,
        visibility_s: int,
        is_ours: Callable[[RewardMessage], bool],
        doubtful: Mapping[int, str],
    ) -> "Future[Heard]":
        """Receive messages of the run, and look up what became of groups (id to name) that no
        message tells of."""
        return self._listeners.submit(self._listen, run_id, visibility_s, is_ours, doubtful)

    def acknowledge(self, receipts: Sequence[str]) -> "Future[list[ReceiptResult]]":
        """Tell the service that these answers are safe."""
        return self._listeners.submit(self._client.ack, receipts)

    def close(self) -> None:
        """Give the connections back; what is under way ends in an error that nobody hears."""
        self._closed.set()
        for pool in (self._senders, self._uploads, self._listeners):
            pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _put(
        self, name: str, images_G3HW: Tensor, body: Callable[[Sequence[str]], Mapping[str, Any]]
    ) -> Exception | None:
        try:
            files = [_png(image) for image in images_G3HW]
            digests = list(self._uploads.map(self._client.put_image, files))
            self._client.put_group(name, body(digests))
        except (LabelServiceError, LabelServiceUnreachableError) as error:
            return error
        return None

    def _listen(
        self,
        run_id: str,
        visibility_s: int,
        is_ours: Callable[[RewardMessage], bool],
        doubtful: Mapping[int, str],
    ) -> Heard:
        heard = Heard()
        try:
            messages = self._client.receive(MAX_MESSAGES, visibility_s, run_id=run_id)
            heard.messages = [message for message in messages if is_ours(message)]
            heard.foreign = [message for message in messages if message not in heard.messages]
            if heard.foreign:
                receipts = [message.receipt for message in heard.foreign]
                self._client.nack(receipts, "no group of its run")
            named = {message.group_id for message in heard.messages}
            for group_id, name in doubtful.items():
                if name not in named:
                    heard.told[group_id] = self._look_up(name)
        except (LabelServiceError, LabelServiceUnreachableError) as error:
            heard.fault = error
        return heard

    def _look_up(self, name: str) -> Mapping[str, Any]:
        try:
            return self._client.request("GET", f"/aggregates/{name}").json()
        except LabelServiceError as error:
            if error.status != 404:
                raise
            return {"state": "lost"}


def _png(image_3HW: Tensor) -> bytes:
    """(3, H, W) uint8 as a PNG file; lossless, so that people judge what the rewards judge."""
    file = io.BytesIO()
    Image.fromarray(image_3HW.permute(1, 2, 0).contiguous().numpy()).save(
        file, "PNG", compress_level=1
    )
    return file.getvalue()
