"""Silence within silence."""

import logging
import warnings

import pytest

from sml_dist.quiet import quiet


def test_what_was_silenced_before_stays_silent_within_and_afterwards(caplog):
    log, before = logging.getLogger("sml_dist.test"), logging.root.manager.disable
    with quiet(logging.ERROR):
        with quiet(), pytest.raises(ZeroDivisionError), quiet():
            log.error("within")
            warnings.warn("within", stacklevel=1)
            raise ZeroDivisionError
        log.error("afterwards")
        log.critical("heard")
    assert [record.message for record in caplog.records] == ["heard"] and logging.root.manager.disable == before
