"""The recorder: what a run writes to disk that is too large for the controller."""
