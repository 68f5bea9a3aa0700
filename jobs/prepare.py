"""`sml-dist prepare` as a Ray job: ray job submit --working-dir . -- python jobs/prepare.py --schema criteo --input GLOB --output DIR"""

import sys

from sml_dist.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "prepare")
    main()
