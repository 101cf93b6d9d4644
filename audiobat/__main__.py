"""`python -m audiobat` is the command `audiobat`."""

from audiobat.cli import main

if __name__ == "__main__":
    main()
