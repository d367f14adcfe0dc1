"""Workers that do the same: work goes to a free one, and is done again if that one dies."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from services.runtime.handles import Handle, WorkerDiedError


class Pool:
    """Interchangeable workers."""

    def __init__(self, handles: Sequence[Handle]) -> None:
        if not handles:
            raise ValueError("a pool of no workers; use at least one")
        self.handles = list(handles)
        self._free: asyncio.Queue[Handle] = asyncio.Queue()
        for handle in self.handles:
            self._free.put_nowait(handle)

    async def run(self, method: str, *args: Any, num_returns: int = 1) -> tuple[Any, float]:
        """The reference (or tuple of them) of a call that is done, and its seconds of work.

        A worker that dies at it is waited for and asked again; what a worker raises is raised.
        """
        handle = await self._free.get()
        try:
            while True:
                answer = getattr(handle, method).remote(*args, num_returns=num_returns)
                try:
                    seconds = await (answer if num_returns == 1 else answer[0]).settled()
                except WorkerDiedError as death:
                    if death.host != handle.host:
                        raise  # what the arguments came from died, so this worker cannot help
                    await handle.revived()
                else:
                    return answer, seconds
        finally:
            self._free.put_nowait(handle)

    def tell(self, method: str, *args: Any) -> Coroutine[Any, Any, list[Any]]:
        """Call every worker, before any call that comes later; await it for their answers.

        One that dies answers None: its restart brings it up to date.
        """
        references = [getattr(handle, method).remote(*args) for handle in self.handles]
        return self._answers(references)

    async def _answers(self, references: Sequence[Any]) -> list[Any]:
        pairs = zip(references, self.handles, strict=True)
        return list(await asyncio.gather(*(_unless_dead(*pair) for pair in pairs)))


async def _unless_dead(reference: Any, handle: Handle) -> Any:
    try:
        return await reference
    except WorkerDiedError as death:
        if death.host != handle.host:
            raise
        await handle.revived()
        return None
