"""Each row of the table as a test."""

import os

import pytest

from tests.faults import rows
from tests.faults.lab import Lab

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lab():
    """GPT2LAB_FAULTS=share tries fewer of the cases that are many."""
    lab = Lab(is_share=os.environ.get("GPT2LAB_FAULTS") == "share")
    yield lab
    lab.close()


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.title)
def test_survived(lab, row):
    outcome = lab.try_out(row)
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    print(*outcome.notes, sep="\n")
    assert outcome.tried > 0
    assert not outcome.failures, "\n".join(outcome.failures)
