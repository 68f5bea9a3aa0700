"""`sml-dist export` as a Ray job: ray job submit --working-dir . -- python jobs/export.py RUN --output DIR"""

import sys

from sml_dist.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "export")
    main()
