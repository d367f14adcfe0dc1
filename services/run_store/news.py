"""What a run's folder says of it, and how old that is: silence is never taken for life."""

import time
from collections.abc import Mapping
from typing import Any

from services.run_store.run_folder import ENDED, RunFolder
from services.run_store.vitals import SILENT_S


def facts_of(folder: RunFolder, now: float | None = None) -> dict[str, Any]:
    """The status with the age of the news, and state `silent` where a run stopped renewing it.

    A clock that is ahead makes nothing fresh: the status is no younger than its file, and one that
    says it is of the future has no age at all (`age_s` None) and `clock_ahead_s`.
    """
    now = time.time() if now is None else now
    status = folder.status()
    state, age = status.get("state", "unknown"), None
    if status:
        ahead = status["updated_at"] - now
        age = now - min(status["updated_at"], folder.status_written_at())
        age = None if age < -SILENT_S else max(0.0, age)
        if ahead > SILENT_S:
            status = {**status, "clock_ahead_s": ahead}
        if (age is None or age > SILENT_S) and state not in ENDED:
            status = {**status, "last_state": state}
            state = "silent"
    return {**status, "run_id": folder.id, "path": str(folder.path), "state": state, "age_s": age}


def news_of(facts: Mapping[str, Any]) -> str:
    """Since when there is no news, from what `facts_of` tells of a silent run."""
    if facts["age_s"] is not None:
        return f"no news for {facts['age_s']:.0f} s"
    ahead = facts["clock_ahead_s"]
    return f"its status is {ahead:.0f} s ahead of this machine's clock, so its age is not known"


def waits_of(facts: Mapping[str, Any]) -> list[str]:
    """What the run waits for, and for how long."""
    return [f"{wait['for']} ({wait['seconds']:.0f} s)" for wait in facts.get("waiting", [])]
