"""Runs jobs, one at a time: a process each, on a leash, and its outcome on the disk."""

import fcntl
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from io import BufferedRandom

from services.run_store.files import write_whole
from services.run_store.run_folder import RunFolder
from services.runs_api.jobs import (
    ExportIn,
    Job,
    SampleIn,
    command_of,
    complaint,
    history,
    leftovers,
    log_of,
    planned,
    record,
    store_of,
)
from services.web.problems import Problem

log = logging.getLogger(__name__)
LEASH = "services.runs_api.leash"
TAIL_BYTES = 4096


class JobRunner:
    """A dashboard's jobs."""

    def __init__(self, is_on: bool, limit_s: float) -> None:
        """`limit_s` is what a job may take."""
        self.is_on = is_on
        self._limit_s = limit_s
        self._lock = threading.Lock()
        self._current: Job | None = None

    def start(
        self, run: RunFolder, checkpoint: str, asked: ExportIn | SampleIn, by: str, key: str
    ) -> Job:
        """The job under this key, started now if it was not before; a Problem says why not."""
        with self._lock:
            known = next((job for job in history(run) if job.key == key), None)
            if known is not None:
                return _the_same(known, checkpoint, asked)
            self._check_free()
            for path in leftovers(run):
                shutil.rmtree(path)
            job = planned(run, checkpoint, asked, by, key)
            (run.path / job.out).mkdir(parents=True)  # ours alone: what fails is removed
            record(run, job.id).parent.mkdir(exist_ok=True)
            said = log_of(run, job).open("x+b")
            fcntl.flock(said, fcntl.LOCK_EX)
            _write(run, job)
            self._current = job
        log.info("job %s of run %s: %s %s, by %s", job.id, run.id, job.kind, checkpoint, by)
        threading.Thread(target=self._work, args=(run, job, said), daemon=True).start()
        return job

    def _check_free(self) -> None:
        if not self.is_on:
            detail = (
                "this dashboard starts no jobs: it listens beyond loopback without `jobs: true`"
            )
            raise Problem(
                403, "jobs-off", "Jobs are off", f"{detail} under `dashboard:` of --settings"
            )
        if self._current is not None:
            detail = f"{self._current.kind} of {self._current.checkpoint} is running; wait for it"
            raise Problem(409, "job-running", "One job at a time", detail)

    def _work(self, run: RunFolder, job: Job, said: BufferedRandom) -> None:
        try:
            with said:  # and with it the lock
                done = self._outcome(run, job, said)
                if done.state == "failed" or done.kind == "sample":
                    shutil.rmtree(run.path / job.out, ignore_errors=True)
                _write(run, done)
        finally:
            self._current = None  # whatever went wrong, the next job is not kept waiting for ever
        log.info("job %s of run %s: %s %s", job.id, run.id, done.state, done.reason)

    def _outcome(self, run: RunFolder, job: Job, said: BufferedRandom) -> Job:
        try:
            status = _finish(command_of(run, job), said, self._limit_s)
            reason = complaint(status, self._limit_s, _tail(said))
            drawn = [] if reason or job.kind == "export" else (run.path / job.out).glob("*.png")
            images = [store_of(run).add_file(path.read_bytes()) for path in sorted(drawn)]
        except (OSError, ValueError) as error:
            return job.ended(f"the dashboard could not do it: {error}")
        return job.ended(reason, images)


def _the_same(known: Job, checkpoint: str, asked: ExportIn | SampleIn) -> Job:
    if (known.checkpoint, known.asked) == (checkpoint, asked):
        return known
    detail = f"this Idempotency-Key came with another {known.kind} before; use a fresh key"
    raise Problem(422, "idempotency-key-reused", "Another body under this key", detail)


def _write(run: RunFolder, job: Job) -> None:
    write_whole(record(run, job.id), job.model_dump_json(indent=1).encode() + b"\n", durable=True)


def _finish(command: Sequence[str], said: BufferedRandom, limit_s: float) -> int | None:
    """Its exit status; None where it was ended since it took too long."""
    # Secrets of the dashboard stay here.
    environment = {name: value for name, value in os.environ.items() if name[:6] != "TDMR1_"}
    with subprocess.Popen(
        [sys.executable, "-m", LEASH, *command],
        stdin=subprocess.PIPE,
        stdout=said,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None  # leaving closes the leash's other end


def _tail(said: BufferedRandom) -> list[str]:
    size = said.seek(0, os.SEEK_END)
    said.seek(max(0, size - TAIL_BYTES))
    return said.read().decode(errors="replace").splitlines()
