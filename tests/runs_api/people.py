"""Who asks the run-side API in tests."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from services.labels.schemas.groups import GroupLease
from services.runs_api.job_runner import JobRunner
from services.web.auth import Credentials, Principal

HOST = "127.0.0.1:8322"
BASE_URL = f"http://{HOST}"
NO_JOBS = JobRunner(is_on=False, limit_s=1)


class Keys:
    """A key ring in memory: the key of a role is its name."""

    def __init__(self, roles: Sequence[str]) -> None:
        self.roles = set(roles)

    async def __call__(self, credentials: Credentials) -> Principal | None:
        """Who has the key."""
        return await self.look_up(credentials)

    async def look_up(self, credentials: Credentials) -> Principal | None:
        """The same."""
        role = credentials.bearer
        return Principal("key", role, role) if role in self.roles else None  # type: ignore[arg-type]


def bearer(role: str, **headers: str) -> dict[str, str]:
    """Headers of a request; `Idempotency_Key="a"` adds Idempotency-Key."""
    extra = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"Authorization": f"Bearer {role}", **extra}


class NoLabels:
    """No label service."""

    def look(self, run_id: str | None, with_names: bool) -> None:
        """Nobody is asked anything."""

    def leases(self, group_id: str) -> list[GroupLease]:
        """Nobody had it."""
        return []


class NoAdmin:
    """No label service to administer."""

    logs: ClassVar = {}

    def names(self, actors: Iterable[str]) -> dict[str, str]:
        """Nobody has one."""
        return {}
