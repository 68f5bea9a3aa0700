"""`sml-dist sweep` as a Ray job: ray job submit --working-dir . -- python jobs/sweep.py CONFIG [--set a.b=c]..."""

import sys

from sml_dist.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "sweep")
    main()
