"""What every test process has."""

import os

# Networks here are tiny: threads that share two cores with clusters and servers wait for each other
# (the toy proofs take a quarter of the time with one). Before torch is imported, which asks once.
os.environ.setdefault("OMP_NUM_THREADS", "1")
