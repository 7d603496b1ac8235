"""The data commands that check and seal a set: one file each, listed in `cli.py`."""
