"""`tdm-r1 labels`: labels to files and back, how the service does, a crowd to try it with."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.commands.console import note, print_json, say, show
from services.label_client.client import LabelClient
from services.label_client.errors import LabelServiceError, LabelServiceUnreachableError
from services.label_client.transfer import export_labels as fetch_export
from services.label_client.transfer import import_labels as push_file
from services.labels.crowd import CrowdConfig, Person, make_crowd, run_crowd
from services.labels.settings import Settings
from services.labels.store import backup as backups
from services.reward.custom import load_attribute

KEY = "TDMR1_LABELS_KEY"
STATES = ("open", "ready", "consumed", "expired", "retired")


def import_labels(url: str, file: Path, as_json: bool) -> int:
    """Push the rows of an export; 1 where some were refused."""
    with _client(url) as client:
        report = push_file(client, file)
    for refusal in report.refusals:
        note(f"{file}:{refusal['line']}: {refusal['code']}: {refusal['detail']}")
    counts = {name: report.counts[name] for name in ("new", "same", "present", "refused")}
    said = ", ".join(f"{number} {name}" for name, number in counts.items())
    show({**counts, "refusals": report.refusals}, as_json, said)
    return 1 if report.counts["refused"] else 0


def export_labels(url: str, out: Path, format: str, filters: dict[str, Any], as_json: bool) -> None:
    """Fetch labels as a file with its manifest."""
    given = {name: value for name, value in filters.items() if value is not None}
    with _client(url) as client:
        manifest = fetch_export(client, out, format, given)
    show(manifest, as_json, f"{manifest['num_rows']} labels in {out / manifest['file']}")


def stats(url: str, as_json: bool) -> None:
    """How many groups, labels and people there are, and how the reward queue does."""
    with _client(url) as client:
        found: dict[str, Any] = {
            "groups": {state: _total(client, "/groups", state=state) for state in STATES},
            "labels": _total(client, "/labels"),
            "annotators": _total(client, "/annotators"),
            "reward_queue": client.queue_stats().model_dump(exclude={"dead_letters"}),
            "diagnosis": client.request("GET", "/diagnosis").json(),
        }
    if as_json:
        print_json(found)
        return
    groups, queue = found["groups"], found["reward_queue"]
    say("groups      " + ", ".join(f"{number} {state}" for state, number in groups.items()))
    say(f"labels      {found['labels']} by {found['annotators']} people")
    _say_diagnosis(found["diagnosis"])
    age = queue["oldest_age_seconds"]
    oldest = "" if age is None else f", oldest {age:.0f} s"
    waiting, out, dead = (queue[name] for name in ("depth", "in_flight", "dead"))
    say(f"rewards     {waiting} waiting, {out} out, {dead} dead{oldest}")


def _say_diagnosis(found: dict[str, Any]) -> None:
    if found["alpha"] is not None:
        ends = found["alpha_interval"]
        interval = f" (95% {ends[0]:.2f} to {ends[1]:.2f})" if ends else ""
        images = f"{found['num_shared_images']} images of several people"
        say(f"agreement   alpha {found['alpha']:.2f}{interval} over {images}")
    for person in found["people"]:
        if person["flags"]:
            flags = ", ".join(person["flags"])
            say(f"look at     {person['annotator_id']}: {flags} ({person['num_votes']} votes)")


def simulate(
    url: str, crowd: CrowdConfig, taste: str, question: str | None, idle_s: float, as_json: bool
) -> None:
    """Let simulated people label over HTTP until there is nothing to do for `idle_s` seconds."""
    people = make_crowd(crowd, load_attribute(taste))
    with _client(url) as admin:
        hired = [(person, _hire(admin, url, person)) for person in people]
    note(f"{len(hired)} people begin")
    try:
        report = run_crowd(hired, question, idle_s=idle_s)
    finally:
        for _, client in hired:
            client.close()
    found = {
        "groups": report.num_groups,
        "values": dict(report.values),
        "lost": report.num_lost,
        "quit": report.num_quit,
    }
    said = ", ".join(f"{number} {value}" for value, number in sorted(report.values.items()))
    show(found, as_json, f"{report.num_groups} groups: {said or 'no labels'}")


def backup(settings: Settings, file: Path, as_json: bool) -> None:
    """Copy the database while it is in use."""
    with _files(file):
        manifest = backups.backup(settings.url, file)
    show(manifest, as_json, f"{manifest['num_bytes']} bytes in {file}")


def restore(settings: Settings, file: Path, verify: bool, as_json: bool) -> None:
    """Put a backup where no database is."""
    with _files(file):
        manifest = backups.restore(file, settings.url, verify)
    show(manifest, as_json, f"restored {manifest['rows']['labels']} labels from {file}")


@contextmanager
def _files(file: Path) -> Iterator[None]:
    """ValueError where a file, this one or what it is made of, is not to be had."""
    try:
        yield
    except OSError as error:
        why = f"{error.filename}: {error.strerror}" if error.filename else error
        raise ValueError(why) from error
    except sqlite3.Error as error:
        raise ValueError(f"{file}: {error}; is the database damaged, or the disk full?") from error


@contextmanager
def _client(url: str) -> Iterator[LabelClient]:
    """ValueError where the service is away or refuses, or a file is not to be had."""
    key = os.environ.get(KEY)
    if not key:
        raise ValueError(f"no key; put one into the environment as {KEY} (tdm-r1 keys create)")
    try:
        with LabelClient(url, key) as client:
            yield client
    except LabelServiceUnreachableError as error:
        raise ValueError(f"{error} Start it with tdm-r1 serve, or give its --url") from error
    except LabelServiceError as error:
        raise ValueError(f"{url} refuses the key in {KEY}, or the request: {error}") from error
    except OSError as error:
        raise ValueError(f"{error.filename}: {error.strerror}") from error


def _total(client: LabelClient, path: str, **filters: Any) -> int:
    params = {"limit": 1, "count": "true", **filters}
    return int(client.request("GET", path, params=params).json()["total"])


def _hire(admin: LabelClient, url: str, person: Person) -> LabelClient:
    """Make the person and a key of theirs for a day."""
    made = admin.request("POST", "/annotators", json={"name": person.name}).json()
    wanted = {
        "name": person.name,
        "role": "annotator",
        "annotator_id": made["annotator_id"],
        "expires_in_days": 1,
    }
    return LabelClient(url, admin.request("POST", "/api-keys", json=wanted).json()["key"])
