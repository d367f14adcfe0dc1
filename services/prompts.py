"""Prompt files, and the order in which a run draws from them.

A `.jsonl` file holds one object a line: GenEval's schema, or `{"prompt": ...}` with whatever else a
reward reads. Any other file is plain text, one prompt a line. Occurrence n of a run is a
function of the seed and n alone, so a run resumes from n.
"""

import difflib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from services.config import PromptsConfig
from tdm_core.prompts import Prompt, prompt_index

RELATIONS = ("left of", "right of", "above", "below")
CLAUSE_KEYS = {
    "include": ("class", "count", "color", "position"),
    "exclude": ("class", "count"),
}
Metadata = dict[str, Any]


def read_prompts(path: Path) -> list[Prompt]:
    """Every prompt of a file, in file order; ValueError names the file and the line of a fault."""
    if not path.is_file():
        raise ValueError(f"prompt file {path} does not exist; give an existing .jsonl or .txt file")
    parse = _parse_json if path.suffix == ".jsonl" else _parse_text
    prompts = [
        Prompt(f"{path.name}:{number}", *_parsed(parse, line, f"{path}:{number}"))
        for number, line in enumerate(_lines(path), start=1)
    ]
    if not prompts:
        raise ValueError(f"prompt file {path} is empty; write one prompt a line")
    return prompts


def training_prompts(config: PromptsConfig) -> list[Prompt]:
    """What a run's rollouts draw from."""
    prompts = read_prompts(config.train)
    return balanced(prompts, config.balance_by) if config.balance_by else prompts


def _lines(path: Path) -> list[bytes]:
    """Lines of the file without the blank ones at its end; only a line feed ends a line."""
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf").rstrip()
    return content.split(b"\n") if content else []


def _parsed(
    parse: Callable[[str], tuple[str, Metadata]], line: bytes, place: str
) -> tuple[str, Metadata]:
    try:
        return parse(line.decode())
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: not UTF-8 ({error.reason}); save the file as UTF-8") from error
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _parse_text(line: str) -> tuple[str, Metadata]:
    if not line.strip():
        raise ValueError("blank line; write one prompt a line and remove empty lines")
    return line.strip(), {}


def _parse_json(line: str) -> tuple[str, Metadata]:
    try:
        parsed = json.loads(line, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"not JSON ({error.msg} at column {error.colno}); "
            'write one object a line, such as {"prompt": "a photo of a dog"}'
        ) from error
    except RecursionError as error:
        raise ValueError("brackets in brackets without an end; write one object a line") from error
    if not isinstance(parsed, dict):
        raise ValueError(f'{line.strip()[:60]} is not an object; write {{"prompt": ...}}')
    try:
        json.dumps(parsed, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise ValueError(f"{half!r} is half a character; write the whole one") from error
    text = parsed.pop("prompt", None)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f'"prompt" is {text!r}; it must be a text that is not blank')
    tag = parsed.get("tag", "")
    if not isinstance(tag, str):
        raise ValueError(f'"tag" is {tag!r}; it must be a text such as "counting"')
    if {"include", "exclude"} & parsed.keys():
        check_clauses(parsed)
    return text.strip(), parsed


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value; use a finite number")


def check_clauses(metadata: Mapping[str, Any]) -> None:
    """Raise ValueError where metadata (without its prompt) breaks GenEval's schema."""
    for key in CLAUSE_KEYS:
        clauses = metadata.get(key, [])
        if not isinstance(clauses, list):
            raise ValueError(f'"{key}" is {clauses!r}; it must be a list of clauses, or left out')
        for place, clause in enumerate(clauses):
            _check_clause(clause, key, place)
    if not metadata.get("include") and not metadata.get("exclude"):
        raise ValueError('no clause; give "include" or "exclude" at least one')


def _check_clause(clause: Any, key: str, place: int) -> None:
    where, allowed = f"{key}[{place}]", CLAUSE_KEYS[key]
    if not isinstance(clause, dict):
        raise ValueError(f'{where} is {clause!r}; write {{"class": "dog", "count": 1}}')
    for name in clause.keys() - set(allowed):
        near = difflib.get_close_matches(str(name), allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{where} has unknown key {name!r}{hint} (allowed: {', '.join(allowed)})")
    for name in ("class", "color"):
        value = clause.get(name, "any" if name == "color" else None)
        if not isinstance(value, str) or not value.strip():
            example = "dog" if name == "class" else "red"
            raise ValueError(f'{where}: "{name}" is {value!r}; write a text such as "{example}"')
    count = clause.get("count")
    if type(count) is not int or count < 1:
        raise ValueError(f'{where}: "count" is {count!r}; it must be a whole number from 1')
    if "position" in clause:
        _check_position(clause["position"], where, place)


def _check_position(position: Any, where: str, place: int) -> None:
    if not isinstance(position, list) or len(position) != 2:
        raise ValueError(f'{where}: "position" is {position!r}; write ["left of", 0]')
    relation, clause = position
    if relation not in RELATIONS:
        raise ValueError(f"{where}: unknown relation {relation!r}; allowed: {', '.join(RELATIONS)}")
    if type(clause) is not int or not 0 <= clause < place:
        raise ValueError(
            f"{where}: position refers to include[{clause!r}]; "
            f"it must be an earlier clause, a number from 0 that is below {place}"
        )


def balanced(prompts: Sequence[Prompt], key: str) -> list[Prompt]:
    """The prompts with repetitions, so that each value of metadata `key` is drawn as often.

    A source with four hundred positions and fifteen single objects would otherwise hardly ever
    show the latter. ValueError where a prompt lacks the key.
    """
    by_value: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        if key not in prompt.metadata:
            raise ValueError(
                f"prompts.balance_by={key!r}: {prompt.prompt_id} has no such metadata "
                f"(it has {', '.join(prompt.metadata) or 'none'}); name a key that all have"
            )
        by_value.setdefault(str(prompt.metadata[key]), []).append(prompt)
    longest = max(map(len, by_value.values()))
    return [p for same in by_value.values() for p in islice(cycle(same), longest)]


class PromptSource:
    """An endless, seeded, resumable walk over prompts; each occurrence is one group."""

    def __init__(self, prompts: Sequence[Prompt], seed: int) -> None:
        if not prompts:
            raise ValueError("no prompts to draw from; give at least one")
        self._prompts = tuple(prompts)
        self._seed = seed
        self._position = 0

    def take(self, count: int) -> list[tuple[int, Prompt]]:
        """The next `count` occurrences as (group_id, prompt); the group_id is the occurrence."""
        occurrences = range(self._position, self._position + count)
        self._position += count
        return [(occurrence, self.prompt_of(occurrence)) for occurrence in occurrences]

    def prompt_of(self, group_id: int) -> Prompt:
        """The prompt of an occurrence, drawn already or not."""
        return self._prompts[prompt_index(self._seed, group_id, len(self._prompts))]

    def state_dict(self) -> dict[str, int | str]:
        """What resumes the walk: the next occurrence, and what the order depends on."""
        return {"position": self._position, "seed": self._seed, "prompts": self._fingerprint()}

    def load_state_dict(self, state: Mapping[str, int | str]) -> None:
        """Go on from a saved state; ValueError where that has other prompts or another seed."""
        for key, here in (("seed", self._seed), ("prompts", self._fingerprint())):
            if state[key] != here:
                raise ValueError(
                    f"saved prompt order has {key} {state[key]!r} but this run has {here!r}; "
                    "resume with the prompt file and the seed that the run began with"
                )
        self._position = int(state["position"])

    def _fingerprint(self) -> str:
        texts = json.dumps([prompt.text for prompt in self._prompts])
        return hashlib.sha256(texts.encode()).hexdigest()[:16]
