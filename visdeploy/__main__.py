"""`python -m visdeploy` is the command line."""

from visdeploy.cli import main

if __name__ == "__main__":
    main()
