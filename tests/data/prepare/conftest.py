import pytest

from gpt2lab.data.prepare import batches, partial


@pytest.fixture
def tiny_batches(monkeypatch):
    """Many batches, and a journal after each of them."""
    monkeypatch.setattr(batches, "BATCH_CHARS", 100)
    monkeypatch.setattr(partial, "SAVE_EVERY_S", 0.0)
