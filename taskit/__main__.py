"""python -m taskit"""

import sys

from taskit.cli import main

sys.exit(main())
