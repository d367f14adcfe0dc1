"""The toy world's reward for runs on the cluster: `python:services.reward.toy:UpperHalf`."""

from services.reward.contract import Answer, RewardInput


class UpperHalf:
    """1 when the second coordinate is above 0, as `tdm_core.toy.UpperHalfReward` judges it."""

    version = "1"
    requires = ("image",)

    def evaluate(self, batch: list[RewardInput]) -> list[Answer]:
        """0 or 1 for every image of the toy world, which has one row and a pixel a coordinate."""
        return [float(item.image[0, 1, 0] > 128) for item in batch]
