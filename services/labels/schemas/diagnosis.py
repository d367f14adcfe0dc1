"""How people label, on the wire."""

from typing import Literal

from pydantic import BaseModel, Field

from services.labels.diagnosis import Diagnosis, Flag


class HabitsView(BaseModel):
    """How one person labels, over the window."""

    annotator_id: str
    state: Literal["active", "excluded", "erased"]
    num_votes: int = Field(description="Likes and dislikes")
    like_rate: float
    median_latency_ms: float | None
    informativeness: float | None = Field(
        description="Youden's J by Dawid-Skene: 1 with the others always, 0 a coin; null alone"
    )
    flags: list[Flag] = Field(description="Reasons to look, never a sentence; none below 20 votes")


class DiagnosisView(BaseModel):
    """What the newest 2,000 likes and dislikes tell of those who gave them."""

    num_votes: int
    num_shared_images: int = Field(description="Judged by more than one person")
    alpha: float | None = Field(description="Krippendorff's: 1 is agreement, 0 chance")
    alpha_interval: tuple[float, float] | None = Field(
        description="Its 95% interval, low and high, by the bootstrap over groups; null where they "
        "are too few or too alike to tell"
    )
    people: list[HabitsView] = Field(description="The flagged first")

    @classmethod
    def of(cls, found: Diagnosis) -> "DiagnosisView":
        """As an admin sees it."""
        return cls(
            num_votes=found.num_votes,
            num_shared_images=found.num_shared_images,
            alpha=found.alpha,
            alpha_interval=found.alpha_interval,
            people=[HabitsView.model_validate(vars(person)) for person in found.people],
        )
