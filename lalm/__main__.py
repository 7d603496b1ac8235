"""`python -m lalm` is the command `lalm`."""

from lalm.cli import start

if __name__ == "__main__":
    start()
