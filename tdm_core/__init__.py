"""The TDM-R1 algorithm: torch and the standard library only."""
