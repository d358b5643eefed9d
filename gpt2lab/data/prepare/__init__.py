"""Text into token files: read, cut into batches, encoded in processes, written with a journal."""

from gpt2lab.data.prepare.corpus import Needs, corpus_folder, prepare

__all__ = ["Needs", "corpus_folder", "prepare"]
