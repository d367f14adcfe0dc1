"""What a run's folder says of it, and how old that is: silence is never taken for life."""

import time
from typing import Any

from services.run_store.run_folder import ENDED, RunFolder
from services.run_store.vitals import SILENT_S


def facts_of(folder: RunFolder, now: float | None = None) -> dict[str, Any]:
    """The status with the age of the news, and state `silent` where a run stopped renewing it."""
    now = time.time() if now is None else now
    status = folder.status()
    age = max(0.0, now - status.get("updated_at", 0.0)) if status else None
    state = status.get("state", "unknown")
    if age is not None and age > SILENT_S and state not in ENDED:
        status = {**status, "last_state": state}
        state = "silent"
    return {**status, "run_id": folder.id, "path": str(folder.path), "state": state, "age_s": age}
