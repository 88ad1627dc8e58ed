"""How much the tests of trust try: a short profile in every run of the tests, a long one by `python -m tests.trust --long`."""

import os

LONG = os.environ.get("NORMFAST_TRUST") == "long"


def cases(short, long):
    """So many cases in this run's profile."""
    return long if LONG else short
