"""Field types that several resources share: what both databases can hold, and nothing else."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, ConfigDict, Field

Value = Literal["like", "dislike", "unsure", "skip"]
"""A verdict on an image."""

REQUEST = ConfigDict(extra="forbid")
"""Of every request body: what we do not know is an error, not ignored."""


def _storable(text: str) -> str:
    # JSON can say what no database keeps: NUL, and halves of surrogate pairs.
    if "\x00" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError("contains a character that is no text (NUL or a lone surrogate)")
    return text


def _near(time: datetime) -> datetime:
    if not 2000 <= time.year < 2200:
        raise ValueError(f"year {time.year}; allowed: 2000 to 2199")
    return time


Text = Annotated[str, AfterValidator(_storable)]
"""Text that can be stored."""
Time = Annotated[AwareDatetime, AfterValidator(_near)]
"""A time with its zone, of this era."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,200}$")]
"""An id that its sender chooses."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""Lower-case hex."""
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""A number that fits a column of 32 bits."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
"""A number that JSON can say."""
