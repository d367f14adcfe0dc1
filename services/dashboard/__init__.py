"""The dashboard: pages over run folders, served beside the run-side API by one process."""
