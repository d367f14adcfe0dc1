"""Held-out prompts, fixed noise, the run's rewards: how good the generator is now."""
