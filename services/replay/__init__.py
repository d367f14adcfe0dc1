"""The replay worker."""
