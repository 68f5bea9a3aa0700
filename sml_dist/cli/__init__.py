"""The command line. Results go to standard output, everything else to standard error; exit status 2 says what to mend.

A file holds the commands of one thing that users do; this is the order in which --help lists them.
"""

from sml_dist.cli import data, training, scoring, serving, sweeps, studies, review, planning, bench, cluster, jobs, status, installation  # noqa: F401, I001, E501
from sml_dist.cli.app import app, main

__all__ = ["app", "main"]
