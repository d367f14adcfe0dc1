"""The run folder: status, commands, images. Everything a person reads or writes about a run."""
