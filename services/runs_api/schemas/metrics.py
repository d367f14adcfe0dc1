"""Numbers on the wire."""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, Field

from services.runs_api.metric_table import Series
from services.runs_api.schemas.runs import moment


class SeriesView(BaseModel):
    """One number over the iterations; the lists are as long as one another."""

    name: str
    steps: list[int]
    times: list[datetime]
    policy_versions: list[int]
    values: list[float | None] = Field(description="null: it was not finite")
    num_points: int = Field(description="How many there are; more than shown where thinned")

    @classmethod
    def of(cls, series: Series) -> Self:
        """As it goes out."""
        return cls.model_validate(vars(series) | {"times": [moment(time) for time in series.times]})


class MetricsView(BaseModel):
    """Numbers of a run."""

    run_id: str
    names: list[str] = Field(description="Every number that the run has told")
    last_step: int | None
    last_time: datetime | None
    num_skipped: int = Field(description="Lines that are left out, since they cannot be read")
    series: list[SeriesView]


class HistogramView(BaseModel):
    """How the values of a reward are spread over the stored images of some iterations."""

    run_id: str
    reward: str
    edges: list[float] = Field(description="One more than counts; empty without a value")
    counts: list[int]
