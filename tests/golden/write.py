"""Rewrites the golden curve: `make golden`. A commit that needs it shows old against new."""

from pathlib import Path

import torch

from examples.one_file import TOY, curve

GOLDEN_FILE = Path(__file__).with_name("toy_run.txt")
ITERATIONS = 40


def main() -> None:
    """Run the toy anew, in float64 on one thread."""
    torch.set_num_threads(1)
    GOLDEN_FILE.write_text("\n".join(curve(TOY, ITERATIONS)) + "\n")


if __name__ == "__main__":
    main()
