"""The surrogate learner: the reward that can be differentiated."""
