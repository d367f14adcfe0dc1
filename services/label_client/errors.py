"""What can go wrong when the label service is asked for something."""

from collections.abc import Mapping, Sequence
from typing import Any


class LabelServiceError(RuntimeError):
    """The service refused; the fields are those of its problem document (RFC 9457)."""

    def __init__(self, problem: Mapping[str, Any], status: int) -> None:
        self.status = status
        self.code: str = str(problem.get("code", "unknown"))
        self.title: str = str(problem.get("title", f"status {status}"))
        self.detail: str = str(problem.get("detail", ""))
        self.errors: Sequence[Mapping[str, Any]] = problem.get("errors") or ()
        self.request_id: str | None = problem.get("request_id")
        self.problem = dict(problem)
        super().__init__(self._message())

    def _message(self) -> str:
        fields = "; ".join(f"{e.get('pointer', '')}: {e.get('detail', '')}" for e in self.errors)
        parts = [f"{self.status} {self.code}: {self.detail or self.title}", fields]
        if self.request_id:
            parts.append(f"request {self.request_id}")
        return " | ".join(part for part in parts if part)


class LabelServiceUnreachableError(RuntimeError):
    """No usable answer after every retry; whether the last request was carried out is unknown."""
