"""`sml-dist evaluate` as a Ray job: ray job submit --working-dir . -- python jobs/evaluate.py RUN [--data DIR]"""

import sys

from sml_dist.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "evaluate")
    main()
