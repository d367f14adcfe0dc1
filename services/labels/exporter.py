"""Exports' background task: makes the files of pending exports, one after the other. Who holds the
export's row gives the file its name: of several processes that have made it, the first.
"""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.labels.exports import Draft, forget_drafts, write_export
from services.labels.store.database import Database
from services.labels.store.faults import StoreUnavailable
from services.labels.store.tables import Export
from services.web.clock import Clock

POLL_S = 0.5
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exporter:
    """Makes files below `folder`; an export that a crash cut off is made again from its start."""

    database: Database
    folder: Path
    clock: Clock

    async def make_next(self) -> bool:
        """Make the oldest pending export; whether there was one."""
        export = await self.database.look(_oldest_pending)
        if export is None:
            return False
        draft, error = await self._make(export)

        def finish(session: Session) -> None:
            row = session.get_one(Export, export.id, with_for_update=True)
            if row.state != "pending":
                return
            row.state, row.error, row.finished_at = "failed", error, self.clock()
            try:
                if draft is not None and draft.publish():
                    row.state, row.manifest = "done", draft.manifest
                elif draft is not None:
                    row.state, row.finished_at = "pending", None
            except OSError as fault:
                row.error = _unwritten(export, fault)

        await self.database.write(finish)
        # One that is still being written elsewhere comes too late as well.
        forget_drafts(self.folder / export.id)
        return True

    async def _make(self, export: Export) -> tuple[Draft | None, str | None]:
        now, folder = self.clock(), self.folder / export.id
        try:
            return await self.database.read(lambda s: write_export(s, export, folder, now)), None
        except OSError as error:
            return None, _unwritten(export, error)
        except StoreUnavailable:
            raise
        except Exception:  # one that cannot be made must not keep back those behind it
            _log.exception("export %s failed", export.id)
            return None, "a fault of the service; its log has the reason"


def _unwritten(export: Export, error: OSError) -> str:
    _log.error("export %s failed: %s", export.id, error)
    return f"the file could not be written: {error.strerror}"


async def make_exports(app: FastAPI) -> None:
    """Consumes: pending exports. Produces: their files. Waits for: the next poll. Ends: never."""
    exporter = Exporter(app.state.database, exports_folder(app), app.state.clock)
    while True:
        if not await exporter.make_next():
            await asyncio.sleep(POLL_S)


def exports_folder(app: FastAPI) -> Path:
    """Where exports lie, a folder each."""
    return Path(app.state.settings.data_dir) / "exports"


def _oldest_pending(session: Session) -> Export | None:
    pending = select(Export).where(Export.state == "pending")
    return session.scalar(pending.order_by(Export.created_at, Export.id).limit(1))
