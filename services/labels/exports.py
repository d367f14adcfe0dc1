"""Exports: labels as a file, with a manifest that says what is in it.

    DATA/exports/<id>/labels.jsonl (or .csv), manifest.json
A file is written under a name of its own, `<name>.<random>.part`, and appears whole, in one step,
or not at all: of several processes that make the same export at once, one is believed. People are
named by pseudonyms that stay the same over exports. A change to the columns is a new
`SCHEMA_VERSION`.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.csv_cells import csv_line
from services.labels.store.tables import Export, Group, GroupImage, Label
from services.run_store.files import write_whole

SCHEMA_VERSION = 1
FORMATS = ("jsonl", "csv")
COLUMNS = (
    "label_id",
    "seq",
    "group_id",
    "run_id",
    "prompt_id",
    "prompt_text",
    "image_index",
    "image_id",
    "image_sha256",
    "question_id",
    "guidelines_version",
    "annotator",
    "value",
    "note",
    "flags",
    "position",
    "latency_ms",
    "shown_at",
    "received_at",
    "source",
    "client_ref",
    "policy_version",
    "is_gold",
    "revision",
    "retracted_at",
)
PAGE = 1000


def pseudonym(annotator_id: str) -> str:
    """A person's name in exports: always the same, and no way back without the database."""
    return "p_" + hashlib.sha256(f"tdmr1-export:{annotator_id}".encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Draft:
    """An export that is written and that nobody sees yet."""

    part: Path
    manifest: dict[str, Any]

    def publish(self) -> bool:
        """Give the file its name, beside its manifest. Again it does no harm; False where another
        process has put its own there meanwhile, which then has to be made once more."""
        path = self.part.with_name(self.manifest["file"])
        if self.part.exists():
            self.part.replace(path)
        elif not path.exists() or _digest(path) != self.manifest["sha256"]:
            return False
        text = json.dumps(self.manifest, indent=1).encode()
        write_whole(path.with_name("manifest.json"), text, durable=True)
        return True


def write_export(session: Session, export: Export, folder: Path, now: datetime) -> Draft:
    """Write the export into `folder`, under a name of its own. All rows are of one snapshot."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"labels.{export.format}"
    part = folder / f"{name}.{secrets.token_hex(8)}.part"
    lines = _lines(_rows(session, export.filters), export.format)
    num_lines, num_bytes, sha256 = _write(part, lines)
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "export_id": export.id,
        "file": name,
        "format": export.format,
        "filters": export.filters,
        "columns": list(COLUMNS),
        "num_rows": num_lines - (export.format == "csv"),  # without the header
        "num_bytes": num_bytes,
        "sha256": sha256,
        "made_at": now.isoformat(),
    }
    return Draft(part, manifest)


def forget_drafts(folder: Path) -> None:
    """Delete what was written and never published, by whatever process."""
    for part in folder.glob("*.part"):
        part.unlink(missing_ok=True)


def _query(filters: Mapping[str, Any]) -> Any:
    """Labels that count, of real groups, unless the filters ask for more."""
    query = (
        select(Label, Group.prompt_id, Group.prompt_text, GroupImage.index, GroupImage.sha256)
        .join(Group, Group.id == Label.group_id)
        .join(GroupImage, GroupImage.id == Label.image_id)
        .order_by(Label.seq)
    )
    for name in ("run_id", "question_id", "group_id"):
        if filters.get(name) is not None:
            query = query.where(getattr(Label, name) == filters[name])
    if filters.get("since_seq") is not None:
        query = query.where(Label.seq > filters["since_seq"])
    if not filters.get("include_gold"):
        query = query.where(Label.is_gold.is_(False))
    if not filters.get("include_retracted"):
        query = query.where(Label.retracted_at.is_(None))
    return query


def _rows(session: Session, filters: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    found = session.execute(_query(filters).execution_options(yield_per=PAGE))
    return (_row(row) for row in found)


def _row(row: Any) -> dict[str, Any]:
    label, prompt_id, prompt_text, index, sha256 = row
    known = {
        "label_id": label.id,
        "prompt_id": prompt_id,
        "prompt_text": prompt_text,
        "image_index": index,
        "image_sha256": sha256,
        "annotator": pseudonym(label.annotator_id),
    }
    return {
        name: known[name] if name in known else _plain(getattr(label, name)) for name in COLUMNS
    }


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _lines(rows: Iterator[dict[str, Any]], format: str) -> Iterator[bytes]:
    """The file, a row a piece; a CSV's first piece is its header."""
    if format == "jsonl":
        for row in rows:
            yield json.dumps(row, ensure_ascii=False).encode() + b"\n"
        return
    yield csv_line(COLUMNS)
    for row in rows:
        yield csv_line(row.values())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, pieces: Iterator[bytes]) -> tuple[int, int, str]:
    """Write to the disk; pieces, bytes and SHA-256."""
    num_pieces, num_bytes, digest = 0, 0, hashlib.sha256()
    with path.open("xb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
            num_pieces += 1
            num_bytes += len(piece)
        file.flush()
        os.fsync(file.fileno())
    return num_pieces, num_bytes, digest.hexdigest()
