"""The checkpoint of a run that people stand by: one small file, replaced in one step.

promoted.json has every promotion, the newest last, with who and when. While a checkpoint is
promoted the run does not remove it, however many it keeps.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from services.manifest import MANIFEST, list_checkpoints
from services.run_store.files import write_whole
from services.run_store.forms import Time
from services.run_store.run_folder import BrokenRunError, RunFolder

FILE = "promoted.json"


class NoCheckpointError(ValueError):
    """The run has no such checkpoint; the message says which it has."""


@dataclass(frozen=True)
class Promotion:
    """One checkpoint's."""

    checkpoint: str
    """Its folder's name."""
    at: Time
    """Unix time."""
    by: str
    """Who, as the audit log names them; empty for the command line."""


_ALL = TypeAdapter(list[Promotion])


def promotions(folder: RunFolder) -> list[Promotion]:
    """Every one, the newest, which holds, last."""
    path = folder.path / FILE
    try:
        return _ALL.validate_json(path.read_bytes())
    except FileNotFoundError:
        return []
    except ValidationError as error:
        raise BrokenRunError(f"{path} is not what we write; it was changed by hand") from error


def promoted(folder: RunFolder) -> Promotion | None:
    """The one that holds."""
    return next(reversed(promotions(folder)), None)


def promoted_checkpoint(folder: RunFolder) -> Path:
    """Its folder; ValueError where none is promoted."""
    promotion = promoted(folder)
    if promotion is None:
        raise ValueError(
            f"run {folder.id} has no promoted checkpoint; tdm-r1 promote {folder.id} STEP makes one"
        )
    return folder.checkpoints / promotion.checkpoint


def promote(folder: RunFolder, checkpoint: str, by: str = "") -> Promotion:
    """Promote a checkpoint, by its name or its step."""
    name = f"step_{int(checkpoint):06d}" if checkpoint.isdecimal() else checkpoint
    before = promotions(folder)
    known = [path.name for path in list_checkpoints(folder.checkpoints)]
    promotion = Promotion(name, time.time(), by)
    if name in known:
        _write(folder, [*before, promotion])
        # The run may be removing it: it looks after it has taken it away, we after we have written.
        if (folder.checkpoints / name / MANIFEST).is_file():
            return promotion
        _write(folder, before)
        known.remove(name)
    raise NoCheckpointError(
        f"run {folder.id} has no checkpoint {checkpoint!r}; it has {', '.join(known) or 'none yet'}"
    )


def _write(folder: RunFolder, found: list[Promotion]) -> None:
    content = json.dumps([asdict(promotion) for promotion in found], indent=1).encode()
    write_whole(folder.path / FILE, content + b"\n", durable=True)
