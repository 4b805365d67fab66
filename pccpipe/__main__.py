"""`python -m pccpipe`: the command, without its script on the PATH."""

from pccpipe.cli.main import main

if __name__ == "__main__":
    main()
