"""The background task that lets time pass for groups and leases."""

import asyncio
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from services.labels import prior_fit
from services.labels.metrics import leases_expired
from services.labels.sweep import is_due, sweep

INTERVAL_S = 1.0


async def sweep_for_ever(app: Any) -> None:
    """Consumes: what the clock has ended. Produces: free groups and messages. Waits for: a second.
    Unblocked by: its cancellation alone."""
    while True:
        await fit_priors(app)
        is_full = await sweep_once(app)
        await asyncio.sleep(0 if is_full else INTERVAL_S)


async def fit_priors(app: Any) -> None:
    """Fit the priors of runs that have labels enough for it."""
    state = app.state

    def fit(session: Session) -> dict[str, dict[str, Any]]:
        ids = prior_fit.runs_to_refit(session)
        return {id: prior_fit.fit(session, id, state.settings) for id in ids}

    for run_id, prior in (await state.database.read(fit)).items():
        await state.database.write(partial(prior_fit.keep, run_id=run_id, prior=prior))


async def sweep_once(app: Any) -> bool:
    """One sweep, if anything is due; whether there may be more at once."""
    state = app.state
    now = state.clock()
    if not await state.database.look(lambda session: is_due(session, now)):
        return False
    swept = await state.database.write(lambda session: sweep(session, now, state.settings))
    leases_expired.inc(swept.num_leases)
    state.bell.ring()
    return swept.is_full
