"""Workers that do the same: work goes to a free one, and is done again if that one dies."""

import asyncio
from typing import Any

from services.runtime.handles import WorkerDiedError
from services.runtime.staff import Staff


class Pool:
    """Interchangeable workers, each of which does one call at a time."""

    def __init__(self, staff: Staff) -> None:
        self.staff = staff

    async def run(self, method: str, *args: Any, num_returns: int = 1) -> tuple[Any, float]:
        """The reference (or tuple of them) of a call that is done, and its seconds of work.

        If a worker dies at it, whoever is free next is asked, which may be the same one, started
        again; what a worker raises is raised.
        """
        staff = self.staff
        while True:
            await staff.news.until(lambda: bool(staff.free))
            handle = staff.take()
            try:
                answer = getattr(handle, method).remote(*args, num_returns=num_returns)
                seconds = await (answer if num_returns == 1 else answer[0]).settled()
                await staff.settle(handle)
                return answer, seconds
            except WorkerDiedError as death:
                if death.host != handle.host:
                    raise  # what the arguments came from died, so no worker of this pool can help
                await staff.died(handle)
            finally:
                staff.enter(handle)

    async def serve(self) -> None:
        """Mind how many workers there are, where that may change; never returns.

        Waits for news of them. Unblocked by `Staff.hold`, by workers that are done, by the clock.
        """
        async with asyncio.TaskGroup() as tasks:
            while True:
                self.staff.resize(tasks)
                await self.staff.news.news(self.staff.look_s)
