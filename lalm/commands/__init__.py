"""The commands of `lalm`, one file each. Importing them is cheap: what a command uses is imported when it runs."""
