"""The true like rate of the bundled world's simulated people: `python:services.reward.taste:Taste`.

Only for judging a run whose people are simulated; a run that trained on it would need no people.
"""

from services.demo.taste import like_rate
from services.reward.contract import Answer, RewardInput


class Taste:
    """How likely an honest simulated person likes the image, in [0, 1]."""

    version = "1"
    requires = ("image",)

    def evaluate(self, batch: list[RewardInput]) -> list[Answer]:
        """One probability an image."""
        return [like_rate(item.image) for item in batch]
