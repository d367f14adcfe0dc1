"""The TDM-R1 objectives, one file a role."""
