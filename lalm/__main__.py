"""`python -m lalm` is the command `lalm`."""

from lalm.cli import main

if __name__ == "__main__":
    main()
