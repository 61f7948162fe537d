"""`python -m zoo` is `robrep-zoo`."""

from zoo.commands.cli import main

if __name__ == "__main__":
    main()
