"""``python -m gitmodel``: the command line, for hooks that know only an interpreter."""

from gitmodel.cli import start

if __name__ == "__main__":
    start()
