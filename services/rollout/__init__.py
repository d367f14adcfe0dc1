"""Rollout: prompts to trajectories and images, with the newest generator that has arrived."""
