"""``python -m gitmodel``: the command line, for hooks that know only an interpreter."""

from gitmodel.cli import main

if __name__ == "__main__":
    main()
