"""Rewards: plain classes that score images, and the worker that runs them."""
