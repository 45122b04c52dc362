"""python -m taskit"""

import sys

from taskit.cli.main import main

sys.exit(main())
