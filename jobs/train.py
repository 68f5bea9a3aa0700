"""`sml-dist train` as a Ray job: ray job submit --working-dir . -- python jobs/train.py CONFIG [--set a.b=c]..."""

import sys

from sml_dist.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "train")
    main()
