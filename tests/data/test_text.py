import math
import pickle
from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gpt2lab.batch import IGNORE, Batch
from gpt2lab.config import GPT2Config, TextConfig, TrainConfig
from gpt2lab.data.text import TextDataModule, Windows, document_numbers
from gpt2lab.data.tokens import Corpus
from gpt2lab.errors import DataError
from gpt2lab.lightning_module import GPT2LightningModule
from gpt2lab.tokenizer import CharTokenizer

WIDE = CharTokenizer("".join(map(chr, range(0x4E00, 0x5E00))))  # a rising text of 4,096 ids
END = 4  # of documents, in the vocabulary below


@pytest.fixture
def corpus_of(tmp_path):
    """Makes a corpus of files with these ids, or of so many ids 0 1 2 3 0 1 ..."""

    def write(name, ids):
        ids = np.arange(ids) % 4 if isinstance(ids, int) else np.array(ids)
        ids.astype("<u2").tofile(tmp_path / name)
        return np.memmap(tmp_path / name, "<u2", "r")

    def make(train=(100,), val=(50,), tokenizer=None):
        return Corpus(
            tmp_path,
            tuple(write(f"train{i}.bin", ids) for i, ids in enumerate(train)),
            tuple(write(f"val{i}.bin", ids) for i, ids in enumerate(val)),
            tokenizer or CharTokenizer("abcé", end_of_text=True),
            "0123",
        )

    return make


def module_of(corpus, batch_size=4, block_size=8, seed=0, **config):
    return TextDataModule(
        TextConfig(**config),
        corpus,
        seed=seed,
        batch_size=batch_size,
        block_size=block_size,
    )


def steps(data, count):
    return list(islice(data.train_dataloader(), count))


def test_the_windows_of_the_description():
    windows = Windows([np.array([10, 11, 12, 13, 14])], [4], 2, None)
    batch = windows.batch(np.array([0, 1]))
    assert batch.inputs.tolist() == [[10, 11], [12, 13]]
    assert batch.targets.tolist() == [[11, 12], [13, 14]]
    assert batch.documents is None
    assert batch.inputs.dtype == batch.targets.dtype == torch.int64


def test_windows_are_numbered_through_files_and_cross_none():
    files = [np.arange(0, 5), np.arange(100, 101), np.arange(200, 208)]
    windows = Windows(files, [4, 0, 6], 2, None)
    assert len(windows) == 5
    batch = windows.batch(np.array([4, 0, 1, 2, 3]))
    assert batch.inputs[:, 0].tolist() == [204, 0, 2, 200, 202]
    assert (batch.targets == batch.inputs + 1).all()


def test_a_file_that_ends_within_a_window_leaves_targets_out():
    batch = Windows([np.arange(9)], [5], 4, None).batch(np.array([0, 1]))
    assert batch.inputs.tolist() == [[0, 1, 2, 3], [4, 0, 0, 0]]
    assert batch.targets.tolist() == [[1, 2, 3, 4], [5, IGNORE, IGNORE, IGNORE]]


def test_ids_of_32_bits_are_whole():
    ids = np.array([70_000, 1, 2**31], np.uint32)
    assert Windows([ids], [2], 2, None).batch(np.array([0])).targets.tolist() == [[1, 2**31]]


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("batch_size", [3, 8])
def test_an_epoch_sees_every_window_once(corpus_of, workers, batch_size):
    # Every id is one of a kind, so that the first of a window names it.
    corpus = corpus_of(train=[range(97), range(1000, 1099)])  # 12 windows each
    data = module_of(corpus, batch_size=batch_size, num_workers=workers)
    assert (data.train.first.ends == [12, 24]).all()
    epoch = steps(data, 24 // batch_size)
    starts = torch.cat([batch.inputs[:, 0] for batch in epoch])
    assert sorted(starts.tolist()) == [*range(0, 96, 8), *range(1000, 1096, 8)]
    assert all((batch.targets == batch.inputs + 1).all() for batch in epoch)


def test_later_epochs_move_all_windows_and_see_each_once(corpus_of):
    data = module_of(corpus_of(train=[range(1003)], tokenizer=WIDE), batch_size=1)
    starts = [int(batch.inputs[0, 0]) for batch in steps(data, 125 + 3 * 124)]
    assert sorted(starts[:125]) == list(range(0, 1000, 8))
    shifts = []
    for epoch in np.split(np.array(starts[125:]), 3):
        shifts.append(epoch.min())
        assert (np.sort(epoch) == np.arange(epoch.min(), epoch.min() + 992, 8)).all()
    assert len(set(shifts)) > 1
    assert max(shifts) < 8


def test_a_step_may_see_the_end_of_an_epoch_and_the_start_of_the_next(corpus_of):
    corpus = corpus_of(train=[range(100)], tokenizer=WIDE)
    data = module_of(corpus, batch_size=8)  # 12 windows, then 11
    ones = module_of(corpus, batch_size=1)
    together = torch.cat([batch.inputs for batch in steps(data, 5)])
    assert torch.equal(together, torch.cat([batch.inputs for batch in steps(ones, 40)]))


def test_text_of_one_window_is_seen_again_and_again(corpus_of):
    data = module_of(corpus_of(train=[range(9)]), batch_size=3)
    assert [batch.inputs[:, 0].tolist() for batch in steps(data, 2)] == [[0, 0, 0]] * 2


def test_workers_and_resumes_give_the_same_batches(corpus_of):
    corpus = corpus_of()
    plain = steps(module_of(corpus), 8)
    for workers in (1, 2):
        data = module_of(corpus, num_workers=workers)
        data.start_step = 3
        for batch, expected in zip(steps(data, 5), plain[3:], strict=True):
            assert torch.equal(batch.inputs, expected.inputs)
            assert torch.equal(batch.targets, expected.targets)


def test_the_seed_decides_the_order(corpus_of):
    corpus = corpus_of(train=[range(1000)])
    first, again, other = (steps(module_of(corpus, seed=s), 1)[0] for s in (0, 0, 1))
    assert torch.equal(first.inputs, again.inputs)
    assert not torch.equal(first.inputs, other.inputs)


def test_a_pickled_dataset_holds_paths_and_no_ids(corpus_of):
    data = module_of(corpus_of(train=[20_000, 30_000]))
    content = pickle.dumps(data.train)
    assert len(content) < 2_000
    assert torch.equal(pickle.loads(content)[5].inputs, data.train[5].inputs)


@pytest.mark.parametrize("block_size", [1, 7, 8, 49, 64])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_evaluation_counts_every_target_once(corpus_of, block_size, batch_size, monkeypatch):
    monkeypatch.setattr("gpt2lab.data.text.EVAL_BATCH_TOKENS", 24)  # several batches
    corpus = corpus_of(train=[200], val=[range(50), range(300, 320)], tokenizer=WIDE)
    data = module_of(corpus, batch_size=batch_size, block_size=block_size)
    batches = list(data.val_dataloader())
    counted = [batch.targets[batch.targets != IGNORE] for batch in batches]
    assert torch.cat(counted).tolist() == [*range(1, 50), *range(301, 320)]
    assert all(len(b.inputs) * block_size <= max(24, block_size) for b in batches)


@pytest.mark.parametrize("eval_tokens", [1, 8, 30, 49, 50, 60, 1000])
def test_evaluation_can_be_limited_to_the_first_tokens(corpus_of, eval_tokens):
    corpus = corpus_of(val=[range(50), range(300, 320)], tokenizer=WIDE)
    data = module_of(corpus, eval_tokens=eval_tokens)
    counted = [b.targets[b.targets != IGNORE] for b in data.val_dataloader()]
    expected = [*range(1, 50), *range(301, 320)][:eval_tokens]
    assert torch.cat(counted).tolist() == expected


def test_bytes_are_those_of_the_targets_that_are_evaluated(corpus_of, monkeypatch):
    monkeypatch.setattr("gpt2lab.data.text.COUNT_CHUNK", 2)
    # a é é <end> b | c a: the targets are é é <end> b | a, of 2 + 2 + 0 + 1 + 1 bytes
    corpus = corpus_of(val=[[0, 3, 3, END, 1], [2, 0]])
    assert module_of(corpus).val_bytes_per_token == 6 / 5
    assert module_of(corpus, eval_tokens=3).val_bytes_per_token == 4 / 3


def test_documents_are_numbered_along_a_row():
    assert document_numbers(np.array([[5, 0, 7, 8, 0], [0, 0, 1, 1, 1]]), 0).tolist() == [
        [0, 0, 1, 1, 1],
        [0, 1, 2, 2, 2],
    ]


def test_a_document_mask_numbers_documents_in_training_and_evaluation(corpus_of):
    text = [0, 1, END, 2, 3, 0, END, 1, 1, 2]
    data = module_of(
        corpus_of(train=[text], val=[text]), batch_size=1, block_size=9, document_mask=True
    )
    (batch,) = steps(data, 1)
    assert batch.documents.tolist() == [[0, 0, 0, 1, 1, 1, 1, 2, 2]]
    assert IGNORE not in batch.targets  # what follows a document is still predicted from its end
    assert next(iter(data.val_dataloader())).documents.tolist() == batch.documents.tolist()


def test_without_a_document_mask_there_are_no_documents(corpus_of):
    assert steps(module_of(corpus_of(train=[[END] * 20])), 1)[0].documents is None


def test_a_document_mask_needs_an_end_of_text(corpus_of):
    corpus = corpus_of(tokenizer=CharTokenizer("abcd"))
    with pytest.raises(DataError, match=r"data\.document_mask: the char tokenizer .*no end of"):
        module_of(corpus, document_mask=True)


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        ([8], [50], "train file has 8 tokens, 9 are needed"),
        ([8, 5], [50], "train file has 8 tokens, 9 are needed"),
        ([9], [1], "val file has 1 tokens, 2 are needed"),
        ([9], [1, 1], "val file has 1 tokens, 2 are needed"),
        ([9], [[0, END]], "its val tokens stand for no text"),
    ],
)
def test_too_little_text_is_refused(corpus_of, tmp_path, train, val, message):
    with pytest.raises(DataError, match=f"{tmp_path}: .*{message}"):
        module_of(corpus_of(train=train, val=val))


def test_the_shortest_corpus_is_one_window_and_one_target(corpus_of):
    data = module_of(corpus_of(train=[9], val=[2]))
    assert len(data.train.first) == 1
    assert [b.num_counted().item() for b in data.val_dataloader()] == [1]
    assert [prompt.tolist() for prompt in data.prompts(8)] == [[0, 1]]


def test_prompts_are_spread_over_the_validation_set(corpus_of):
    data = module_of(corpus_of(val=[range(100), range(500, 530)], tokenizer=WIDE))
    prompts = data.prompts(8)
    assert [len(prompt) for prompt in prompts] == [4] * 8
    assert all((prompt.diff() == 1).all() for prompt in prompts)
    assert (prompts[0][0], prompts[-1][0]) == (0, 524)  # from the first window to the last
    assert len(data.prompts(1000)) == 17  # no more than there are


def test_a_long_context_does_not_make_long_prompts(corpus_of):
    data = module_of(corpus_of(train=[600], val=[600]), block_size=512)
    assert data.prompts(1)[0].shape == (32,)


def test_what_a_run_records_of_its_data(corpus_of):
    data = module_of(corpus_of())
    assert data.tokens_per_step == 32
    assert data.fingerprint() == "text-0123-8"
    assert data.decode([0, 3, END]) == "aé<|endoftext|>"


def evaluated(data):
    settings = TrainConfig(model=GPT2Config(1, 1, 8, 8, 5))
    module = GPT2LightningModule(settings)
    module._trainer = SimpleNamespace(datamodule=data, loggers=[], global_step=0, strategy=None)
    module.log_dict = lambda *args, **kwargs: None
    batch = Batch(torch.zeros(1, 8, dtype=torch.long), torch.zeros(1, 8, dtype=torch.long))
    module.validation_step(batch.with_counted(), 0)
    module.on_validation_epoch_end()
    return module.latest


def test_text_is_judged_by_bits_per_byte_and_answers_by_exact_match():
    text = evaluated(SimpleNamespace(has_answers=False, val_bytes_per_token=2.0))
    assert text["val/bits_per_byte"] == pytest.approx(text["val/loss"] / math.log(2) / 2)
    assert "val/exact_match" not in text
    answers = evaluated(SimpleNamespace(has_answers=True))
    assert "val/exact_match" in answers
    assert "val/bits_per_byte" not in answers


def test_a_sample_is_named_by_the_place_of_its_first_token(corpus_of):
    # Two files and three epochs, the later ones shifted; some steps see the end of one epoch.
    files = [range(97), range(1000, 1099)]
    data = module_of(corpus_of(train=files, tokenizer=WIDE), batch_size=5)
    ids = np.concatenate(files)
    epochs_of_steps = set()
    for step in range(14):
        batch = data.train[step]
        epochs_of_steps.add(len(list(data.train.parts(step))))
        for row, first in enumerate(data.sample_ids(step)):
            assert ids[first : first + 8].tolist() == batch.inputs[row].tolist()
            assert ids[first + 8] == batch.targets[row, -1]
    assert epochs_of_steps == {1, 2}
