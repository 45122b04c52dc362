"""Start TaskIT's web app, as a Space does."""

import sys

from taskit.cli import main

if __name__ == "__main__":
    sys.exit(main(["app"]))
