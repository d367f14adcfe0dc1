"""Which stored images of rollouts go, and how: oldest groups first, each with a tombstone.

Images of evaluations lie in a store of their own and are never touched. Groups that people were
asked about or have labelled stay: their verdicts speak of these images. So does the newest group.
A file that a kept group shows, too, stays. `images/removed.jsonl` says what goes before it goes,
one group a line, so that a reader can tell it from a loss.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.config import RetentionConfig
from services.run_store.forms import is_appearance, is_group_event
from services.run_store.images import ImageStore, forget_thumbnails
from services.run_store.run_folder import RunFolder
from services.run_store.tail import Tail

THUMBNAILS = ".cache"
"""Where a dashboard over a folder of runs keeps small images, unless told otherwise."""


@dataclass
class _Group:
    """The images of one group that are on the disk."""

    step: int
    digests: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Removed:
    """What went, or would go."""

    num_groups: int
    num_images: int
    num_bytes: int


class Retention:
    """Keeps account of one run's stored rollouts; for the one writer of its images."""

    def __init__(self, folder: RunFolder, rule: RetentionConfig) -> None:
        """Reads what is there."""
        self._rule = rule
        self._store = ImageStore(folder.images)
        self._thumbnails = folder.path.parent / THUMBNAILS
        self._groups: dict[int, _Group] = {}
        self._shown_by: Counter[str] = Counter()
        self._sizes: dict[str, int] = {}
        self._wanted: set[int] = set()
        self._labelled: set[int] = set()
        self.stored(Tail(self._store.index_path, is_ours=is_appearance).read_all())
        self.happened(Tail(folder.groups, is_ours=is_group_event).read_all())

    @property
    def num_bytes(self) -> int:
        """Of all files that groups show."""
        return sum(self._sizes.values())

    @property
    def num_wanted(self) -> int:
        """Groups on the disk that stay since people speak of them."""
        return len(self._groups.keys() & (self._wanted | self._labelled))

    def stored(self, appearances: Iterable[Mapping[str, Any]]) -> None:
        """Lines of the index, of images that were just stored; what is gone is left out."""
        for line in appearances:
            sizes = {digest: self._size(digest) for digest in digests_of(line)}
            there = {digest: size for digest, size in sizes.items() if size is not None}
            if not there:
                continue
            group = self._groups.setdefault(line["group_id"], _Group(line["step"]))
            group.step = line["step"]
            self._shown_by.update(there.keys() - group.digests)
            group.digests |= there.keys()
            self._sizes |= there

    def happened(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Lines of groups.jsonl."""
        for event in events:
            group_id = event["group_id"]
            if event["event"] == "asked":
                self._wanted.add(group_id)
            elif event["event"] == "labelled":
                self._wanted.discard(group_id)
                if event["states"].get("ready"):
                    self._labelled.add(group_id)

    def apply(self, only_count: bool = False) -> Removed:
        """Remove what the rule does not keep; with `only_count` nothing is removed."""
        going = self._going()
        files = [digest for gone in going.values() for digest in gone]
        removed = Removed(len(going), len(files), sum(self._sizes[digest] for digest in files))
        if not only_count:
            for group_id, gone in going.items():
                self._remove(group_id, gone)
        return removed

    def _going(self) -> dict[int, set[str]]:
        """Groups that go, oldest first, with the files that nothing that stays shows."""
        shown_by, left = self._shown_by.copy(), self.num_bytes
        going: dict[int, set[str]] = {}
        by_age = sorted(self._groups, key=lambda group_id: (self._groups[group_id].step, group_id))
        for group_id in by_age[:-1]:
            if group_id in self._wanted or group_id in self._labelled:
                continue
            if not self._is_old(group_id, by_age[-1]) and not self._is_over(left):
                continue
            digests = self._groups[group_id].digests
            shown_by.subtract(digests)
            going[group_id] = {digest for digest in digests if not shown_by[digest]}
            left -= sum(self._sizes[digest] for digest in going[group_id])
        return going

    def _is_old(self, group_id: int, newest: int) -> bool:
        age = self._groups[newest].step - self._groups[group_id].step
        return self._rule.last_iterations is not None and age >= self._rule.last_iterations

    def _is_over(self, num_bytes: int) -> bool:
        return self._rule.max_bytes is not None and num_bytes > self._rule.max_bytes

    def _remove(self, group_id: int, gone: set[str]) -> None:
        group = self._groups.pop(group_id)
        tombstone = {
            "time": time.time(),
            "group_id": group_id,
            "digests": sorted(group.digests),
            "rule": str(self._rule),
        }
        with self._store.removed_path.open("a") as file:
            file.write(json.dumps(tombstone) + "\n")
        self._shown_by.subtract(group.digests)
        for digest in gone:
            del self._sizes[digest], self._shown_by[digest]
            self._store.path(digest).unlink(missing_ok=True)
            forget_thumbnails(self._thumbnails, digest)

    def _size(self, digest: str) -> int | None:
        try:
            return self._store.path(digest).stat().st_size
        except FileNotFoundError:
            return None


def digests_of(line: Mapping[str, Any]) -> set[str]:
    """Every file that a line of the index names."""
    return {line["digest"], *line.get("predictions", ())}
