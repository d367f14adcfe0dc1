"""The TDM-R1 cluster: workers, learners, and the programs that run them."""
