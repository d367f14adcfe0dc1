"""GenEval's rules as pure functions: detections and a prompt's metadata in, a verdict out.

Per class, detections above the threshold are sorted by confidence and the first 16 kept. Every
`include` clause takes its first `count` of them; see `score_strict` and `score_soft`. A position
refers to an earlier clause. Nothing here sees a pixel: a detector supplies the detections, colours
included. Metadata is as `services.prompts.check_clauses` has found it to be.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from services.prompts import RELATIONS

MAX_OBJECTS_PER_CLASS = 16
POSITION_MARGIN = 0.1

Box = tuple[float, float, float, float]


class DetectedObject(Protocol):
    """What the rules read of a detection; box is (x0, y0, x1, y1), y pointing down."""

    @property
    def class_name(self) -> str: ...
    @property
    def color(self) -> str | None: ...
    @property
    def score(self) -> float: ...
    @property
    def box(self) -> Box: ...


def relations_between(box_a: Box, box_b: Box) -> frozenset[str]:
    """The relations in which A stands to B, from boxes (x0, y0, x1, y1); none, one or two.

    Each axis of the centres' offset is reduced by 0.1 x (sum of both extents) and floored at 0,
    then divided by the norm of the unreduced offset; beyond 0.5 in size is a relation.
    """
    offset = [(box_a[i] + box_a[i + 2] - box_b[i] - box_b[i + 2]) / 2 for i in (0, 1)]
    extents = [abs(box_a[i + 2] - box_a[i]) + abs(box_b[i + 2] - box_b[i]) for i in (0, 1)]
    reduced = [
        math.copysign(max(abs(delta) - POSITION_MARGIN * extent, 0.0), delta)
        for delta, extent in zip(offset, extents, strict=True)
    ]
    if max(abs(reduced[0]), abs(reduced[1])) < 1e-3:
        return frozenset()
    norm = math.hypot(*offset)
    dx, dy = reduced[0] / norm, reduced[1] / norm
    holds = (dx < -0.5, dx > 0.5, dy < -0.5, dy > 0.5)
    return frozenset(name for name, true in zip(RELATIONS, holds, strict=True) if true)


def objects_by_class(
    metadata: Mapping[str, Any],
    detections: Sequence[DetectedObject],
    threshold: float = 0.3,
    counting_threshold: float = 0.9,
) -> dict[str, list[DetectedObject]]:
    """Detections the rules may use: above the tag's threshold, best first, at most 16 a class."""
    limit = counting_threshold if metadata.get("tag") == "counting" else threshold
    objects: dict[str, list[DetectedObject]] = {}
    for detection in sorted(detections, key=lambda found: -found.score):
        kept = objects.setdefault(detection.class_name, [])
        if detection.score > limit and len(kept) < MAX_OBJECTS_PER_CLASS:
            kept.append(detection)
    return objects


def score_strict(
    metadata: Mapping[str, Any],
    detections: Sequence[DetectedObject],
    threshold: float = 0.3,
    counting_threshold: float = 0.9,
) -> tuple[bool, str]:
    """The benchmark's 0/1 verdict and, when it is no, the reasons joined by "; "."""
    objects = objects_by_class(metadata, detections, threshold, counting_threshold)
    reasons: list[str] = []
    matched: list[list[DetectedObject]] = []
    for clause in metadata.get("include", []):
        taken = objects.get(clause["class"], [])[: clause["count"]]
        reason = _why_unmatched(clause, taken, matched)
        matched.append([] if reason else taken)
        if reason:
            reasons.append(reason)
    for clause in metadata.get("exclude", []):
        found = len(objects.get(clause["class"], []))
        if found >= clause["count"]:
            reasons.append(f"expected {clause['class']}<{clause['count']}, found {found}")
    return not reasons, "; ".join(reasons)


def score_soft(
    metadata: Mapping[str, Any],
    detections: Sequence[DetectedObject],
    threshold: float = 0.3,
    counting_threshold: float = 0.9,
) -> float:
    """A graded score in [0, 1]: the mean over all clauses and their conditions.

    Presence min(found, count) / count, for tag counting max(0, 1 - |found - count| / count);
    colour: matching / count; position: 1 when all objects of both clauses are there and stand so
    (whatever their colours), else 0; an `exclude` clause: 1 when kept, 0 when broken.
    """
    objects = objects_by_class(metadata, detections, threshold, counting_threshold)
    counting = metadata.get("tag") == "counting"
    include = metadata.get("include", [])
    terms: list[float] = []
    for clause in include:
        found, count = objects.get(clause["class"], []), clause["count"]
        off = abs(len(found) - count) if counting else max(count - len(found), 0)
        terms.append(max(0.0, 1 - off / count))
        if "color" in clause:
            terms.append(sum(one.color == clause["color"] for one in found[:count]) / count)
        if "position" in clause:
            relation, index = clause["position"]
            target = include[index]
            others = objects.get(target["class"], [])[: target["count"]]
            enough = len(found) >= count and len(others) == target["count"]
            terms.append(float(enough and _all_stand(found[:count], relation, others)))
    for clause in metadata.get("exclude", []):
        terms.append(float(len(objects.get(clause["class"], [])) < clause["count"]))
    return sum(terms) / len(terms)


def _why_unmatched(
    clause: Mapping[str, Any],
    taken: Sequence[DetectedObject],
    matched: Sequence[Sequence[DetectedObject]],
) -> str:
    name, count = clause["class"], clause["count"]
    if len(taken) < count:
        return f"expected {name}>={count}, found {len(taken)}"
    right = sum(one.color == clause.get("color") for one in taken)
    if "color" in clause and right < count:
        return f"expected {clause['color']} {name}>={count}, found {right}"
    if "position" in clause:
        relation, index = clause["position"]
        if not matched[index]:
            return f"no target for {name} to be {relation}"
        if not _all_stand(taken, relation, matched[index]):
            return f"expected {name} {relation} target, found otherwise"
    return ""


def _all_stand(
    objects: Sequence[DetectedObject], relation: str, others: Sequence[DetectedObject]
) -> bool:
    return all(relation in relations_between(a.box, b.box) for a in objects for b in others)
