"""Start TaskIT's web app, as a Space does; options are those of `taskit app`."""

import os
import sys

from taskit.cli.main import main

if __name__ == "__main__":
    on_space = ["--host", "0.0.0.0"] if os.environ.get("SPACE_ID") else []
    if on_space:  # a token of the Space itself is not its visitors'
        os.environ.setdefault("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    sys.exit(main(["app", *on_space, *sys.argv[1:]]))
