"""`sml-dist predict` as a Ray job: ray job submit --working-dir . -- python jobs/predict.py RUN --input GLOB|DATASET --output DIR"""

import sys

from sml_dist.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "predict")
    main()
