"""A reward of your own: how colourful an image is (Hasler and Suesstrunk, 2003).

In the config, with the job started in this file's folder:

    rewards:
      - {name: colour, kind: "python:custom_reward:Colourfulness"}

On a folder of images: tdm-r1 reward python:custom_reward:Colourfulness --images DIR
"""

import numpy as np


class Colourfulness:
    """Spread plus 0.3 x mean size of the two opponent colours; 0 is grey, above 1 is vivid."""

    version = "1"
    requires = ("image",)

    def evaluate(self, batch):
        """One number for every image of the batch, in the same order."""
        return [self._colourfulness(item.image) for item in batch]

    def _colourfulness(self, image):
        red, green, blue = np.moveaxis(image.astype(np.float64), -1, 0)
        opponents = np.stack([red - green, (red + green) / 2 - blue]).reshape(2, -1)
        spread, offset = opponents.std(axis=1), opponents.mean(axis=1)
        return float(np.hypot(*spread) + 0.3 * np.hypot(*offset)) / 100
