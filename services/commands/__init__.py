"""What each `tdm-r1` command does; `services/cli.py` has their names and options."""
