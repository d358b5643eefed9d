import json

import pytest

from tests.sweep.studies import ROOT


@pytest.fixture(autouse=True)
def _stubs_are_found(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def befalls(monkeypatch):
    """What befalls runs, by their names: befalls({"trial-0001-seed-0": {"raise": "..."}})."""
    return lambda plans: monkeypatch.setenv("STUB", json.dumps(plans))
