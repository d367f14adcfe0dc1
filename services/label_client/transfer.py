"""Labels as files: fetched as an export, pushed from one.

An export's rows name images by (group_id, image_index), so they find their place on another server
that has the same groups. People become users of the importing key, by their pseudonyms. Importing
again changes nothing; a label that came from this very server is left alone.
"""

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from services.label_client.client import LabelClient
from services.label_client.errors import LabelServiceError
from services.label_client.models import LabelIn

POLL_S = 0.2
MAX_REFUSALS = 100
WANTED = ("group_id", "image_index", "annotator", "value")


@dataclass
class ImportReport:
    """What became of a file's rows."""

    counts: Counter[str] = field(default_factory=Counter)
    """new; same (said before by that person); present (this server's own); refused."""
    refusals: list[dict[str, Any]] = field(default_factory=list)
    """The first refusals: line, code, detail."""

    def refuse(self, line: int, code: str, detail: str) -> None:
        """Count a row that was not stored."""
        self.counts["refused"] += 1
        if len(self.refusals) < MAX_REFUSALS:
            self.refusals.append({"line": line, "code": code, "detail": detail})


def import_labels(client: LabelClient, path: Path) -> ImportReport:
    """Push the rows of an export's jsonl; `client` needs the scope labels:on_behalf."""
    report = ImportReport()
    with path.open("rb") as file:
        rows = _rows(file, report)
        for group_id, of_group in groupby(rows, key=lambda numbered: numbered[1]["group_id"]):
            _import_group(client, str(group_id), list(of_group), report)
    return report


def export_labels(
    client: LabelClient,
    folder: Path,
    format: str,
    filters: Mapping[str, Any],
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Have labels exported and fetch the file into `folder`, with manifest.json; the manifest.

    ValueError where the file is not what the manifest says.
    """
    body = {"format": format, "filters": dict(filters)}
    made = client.request("POST", "/exports", json=body)
    path = made.headers["location"].removeprefix("/api/v1")
    while (view := client.request("GET", path).json())["state"] == "pending":
        sleep(POLL_S)
    if view["state"] != "done":
        raise ValueError(f"export {view['export_id']} failed: {view['error']}")
    manifest = view["manifest"]
    folder.mkdir(parents=True, exist_ok=True)
    content = client.request("GET", f"{path}/file").content
    if hashlib.sha256(content).hexdigest() != manifest["sha256"]:
        raise ValueError(f"export {view['export_id']} arrived damaged; export again")
    (folder / manifest["file"]).write_bytes(content)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1))
    return manifest


def _rows(file: Iterable[bytes], report: ImportReport) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(file, 1):
        try:
            row = json.loads(line)
            missing = [name for name in WANTED if name not in row]
        except (ValueError, TypeError) as error:
            report.refuse(number, "not-a-row", f"not a JSON object ({error})")
            continue
        if missing:
            report.refuse(number, "not-a-row", f"lacks {', '.join(missing)}")
        elif row.get("retracted_at") is None:
            yield number, row


def _import_group(
    client: LabelClient,
    group_id: str,
    rows: list[tuple[int, dict[str, Any]]],
    report: ImportReport,
) -> None:
    try:
        found = client.request("GET", f"/groups/{group_id}", params={"include": "labels"}).json()
    except LabelServiceError as error:
        for number, _ in rows:
            report.refuse(number, error.code, f"group {group_id}: {error.detail}")
        return
    images = {str(image["index"]): image["image_id"] for image in found["images"]}
    own = {label["id"] for label in found["labels"]}
    wanted: list[tuple[int, LabelIn]] = []
    for number, row in rows:
        if row.get("label_id") in own:
            report.counts["present"] += 1
        elif (image_id := images.get(str(row["image_index"]))) is None:
            report.refuse(number, "not-found", f"group {group_id} has no image of that index")
        else:
            try:
                wanted.append((number, _label(row, image_id)))
            except ValidationError as error:
                report.refuse(number, "not-a-row", _told(error))
    for start in range(0, len(wanted), 1000):
        _push(client, wanted[start : start + 1000], report)


def _told(error: ValidationError) -> str:
    return "; ".join(f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors())


def _label(row: Mapping[str, Any], image_id: str) -> LabelIn:
    return LabelIn(
        image_id=image_id,
        value=row["value"],
        annotator_ref=str(row["annotator"]),
        note=row.get("note"),
        flags=row.get("flags"),
        latency_ms=row.get("latency_ms"),
        client_ref=row.get("client_ref") or row.get("label_id"),
    )


def _push(client: LabelClient, labels: list[tuple[int, LabelIn]], report: ImportReport) -> None:
    results = client.push_labels([label for _, label in labels], source="import")
    for (number, _), result in zip(labels, results, strict=True):
        if result.problem is not None:
            report.refuse(number, result.problem["code"], result.problem["detail"])
        else:
            report.counts["new" if result.status == 201 else "same"] += 1
