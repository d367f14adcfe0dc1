"""Images on the wire."""

from datetime import datetime

from pydantic import BaseModel

from services.labels.store.tables import Image


class ImageView(BaseModel):
    """An image that is here."""

    sha256: str
    media_type: str
    width: int
    height: int
    num_bytes: int
    created_at: datetime

    @classmethod
    def of(cls, row: Image) -> "ImageView":
        """A row as its sender sees it."""
        return cls.model_validate({name: getattr(row, name) for name in cls.model_fields})
