"""Requests of one key that come together are looked up together, but not from before they came."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from sqlalchemy.orm import Session

from services.labels.api_keys import revoke_key
from services.labels.authentication import Directory
from services.labels.store.database import Database
from services.labels.store.tables import ApiKey
from services.web.auth import Credentials
from services.web.keys import parse_key
from services.web.limits import RateLimiter
from tests.labels.people import SettableClock, make_key

pytestmark = pytest.mark.unit


class SlowDatabase:
    """The database, whose answers wait until the test lets them go."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.go = asyncio.Event()
        self.num_reads = 0
        self.read_once = asyncio.Event()

    async def look(self, query: Callable[[Session], Any]) -> Any:
        """What was there when it was asked, told later."""
        self.num_reads += 1
        found = await self._database.look(query)
        self.read_once.set()
        await self.go.wait()
        return found


@pytest.fixture
def key(one_database_url: str, clock: SettableClock) -> Iterator[tuple[Database, str]]:
    database = Database.open(one_database_url)
    yield database, make_key(database, "viewer", clock())
    database.close()


def test_many_requests_of_one_key_are_few_lookups(
    key: tuple[Database, str], clock: SettableClock
) -> None:
    async def scene() -> int:
        slow = SlowDatabase(key[0])
        directory = Directory(cast(Database, slow), clock, RateLimiter({}, clock))
        asked = [
            asyncio.create_task(directory.look_up(Credentials(bearer=key[1]))) for _ in range(32)
        ]
        await slow.read_once.wait()
        asked += [
            asyncio.create_task(directory.look_up(Credentials(bearer=key[1]))) for _ in range(32)
        ]
        await asyncio.sleep(0)
        slow.go.set()
        principals = await asyncio.gather(*asked)
        assert {principal and principal.role for principal in principals} == {"viewer"}
        return slow.num_reads

    assert asyncio.run(scene()) == 2


def test_a_key_revoked_meanwhile_opens_nothing_to_who_comes_after(
    key: tuple[Database, str], clock: SettableClock
) -> None:
    async def scene() -> list[bool]:
        slow = SlowDatabase(key[0])
        directory = Directory(cast(Database, slow), clock, RateLimiter({}, clock))
        credentials = Credentials(bearer=key[1])
        before = asyncio.create_task(directory.look_up(credentials))
        await slow.read_once.wait()
        await key[0].write(lambda session: revoke(session, key[1], clock))
        after = asyncio.create_task(directory.look_up(credentials))
        await asyncio.sleep(0)
        slow.go.set()
        return [await before is not None, await after is not None]

    assert asyncio.run(scene()) == [True, False]


def revoke(session: Session, key: str, clock: SettableClock) -> None:
    parsed = parse_key(key)
    assert parsed is not None
    revoke_key(session, session.get_one(ApiKey, parsed[0]), clock(), "test")
