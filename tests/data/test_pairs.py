import datetime
import json
from itertools import chain

import numpy as np
import pytest
import torch

from gpt2lab.batch import IGNORE
from gpt2lab.config import GPT2Config, PairsConfig, PairsSource, Vocabulary
from gpt2lab.data import dates
from gpt2lab.data.pair_files import Pair, Pairs
from gpt2lab.data.pairs import PairsDataModule, PairsTrain, encode_pairs
from gpt2lab.errors import DataError
from gpt2lab.model import GPT2
from gpt2lab.tokenizer import CharTokenizer, gpt2_tokenizer

# ids \n 0, a 1, b 2, c 3, <|endoftext|> 4
TOKENIZER = CharTokenizer("\nabc", end_of_text=True)
WORDS = [("a" * (i % 5) + "b" * (i % 7), "c" * (i % 3) + "ab"[i % 2]) for i in range(105)]


def char_config(**changes):
    return PairsConfig(**{"tokenizer": Vocabulary.char, "context": 16, "val_share": 0.2, **changes})


def encoded(*pairs):
    found = Pairs("a.jsonl", [Pair(*pair, line) for line, pair in enumerate(pairs, 1)])
    return encode_pairs(found, TOKENIZER, char_config())


@pytest.fixture
def config(tmp_path):
    """Of 105 short pairs."""
    lines = (json.dumps({"source": source, "target": target}) for source, target in WORDS)
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    return char_config(path=str(tmp_path / "a.jsonl"))


def module(config, **changes):
    changed = PairsConfig(**{**vars(config), **changes})
    return PairsDataModule(changed, seed=1, batch_size=8)


def pairs_of(batch):
    """Each pair of a batch as its ids, end token included, in order."""
    found = []
    documents = torch.zeros_like(batch.inputs) if batch.documents is None else batch.documents
    for inputs, targets, numbers in zip(batch.inputs, batch.targets, documents, strict=True):
        for number in numbers.unique():
            own = numbers == number
            last = (own & (targets == 4)).nonzero()  # the end token, as a target
            if len(last):
                first = own.nonzero()[0]
                found.append((*inputs[first : last + 1].tolist(), 4))
    return found


def wanted_ids(words):
    return [(*TOKENIZER.encode_array(f"{a}\n{b}").tolist(), 4) for a, b in words]


def test_the_row_of_the_description(tmp_path):
    write = (tmp_path / "a.jsonl").write_text
    write('{"source": "ab", "target": "c"}\n')
    config = char_config(path=str(tmp_path / "a.jsonl"), val_path=str(tmp_path / "a.jsonl"))
    batch = module(config, context=6).train[0]
    assert batch.inputs.tolist() == [[1, 2, 0, 3, 4, 4]] * 8
    assert batch.targets.tolist() == [[IGNORE, IGNORE, 3, 4, IGNORE, IGNORE]] * 8
    assert batch.documents is None


def test_pairs_of_a_packed_row_are_documents_of_their_own(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"source": "ab", "target": "c"}\n{"source": "", "target": "aa"}\n')
    config = char_config(path=str(path), val_path=str(path), packed=True)
    batch = module(config, context=9).train[0]
    assert batch.inputs[0].tolist() == [1, 2, 0, 3, 0, 1, 1, 4, 4]
    assert batch.targets[0].tolist() == [IGNORE, IGNORE, 3, 4, 1, 1, 4, IGNORE, IGNORE]
    assert batch.documents[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2]


def test_mask_prefix_alone_hides_what_was_given(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "gpt2lab.data.pairs.mask_prefix",
        lambda targets, prefix: seen.append(prefix.tolist()) or targets,
    )
    _, targets, own = encoded(("ab", "c"), ("", "aa")).shifted(np.array([1, 0]))
    assert seen == [[1, 3]]
    assert targets[own].tolist() == [1, 1, 4, 2, 0, 3, 4]  # nothing is ignored


def test_prefix_and_target_share_no_token():
    tokenizer = gpt2_tokenizer()
    found = Pairs("a.jsonl", [Pair("New", "York", 1)])
    pairs = encode_pairs(found, tokenizer, PairsConfig(separator=" "))
    # in one go " York" would be one token
    assert [tokenizer.decode([token]) for token in pairs.ids[:-1]] == ["New", " ", "York"]
    assert pairs.ids[-1] == 50256
    assert pairs.prefixes.tolist() == [2]


def test_a_pair_that_does_not_fit_is_refused_with_the_context_that_would_do():
    found = Pairs("a.jsonl", [Pair("a" * 9, "b", 2), Pair("a" * 20, "b", 7), Pair("a" * 14, "", 8)])
    fits = char_config(context=22)
    assert encode_pairs(found, TOKENIZER, fits).lengths.tolist() == [11, 22, 15]
    problem = (
        r"a\.jsonl:7: the pair needs 22 tokens, data\.context is 14 \(too few for 2 of 3 pairs\); "
        r"give data\.context=22, or shorten them"
    )
    with pytest.raises(DataError, match=problem):
        encode_pairs(found, TOKENIZER, char_config(context=14))


def test_a_pair_without_a_first_token_is_refused():
    found = Pairs("a.jsonl", [Pair("a", "b", 1), Pair("", "b", 2)])
    with pytest.raises(DataError, match=r"a\.jsonl:2: source and data\.separator are both empty;"):
        encode_pairs(found, TOKENIZER, char_config(separator=""))


@pytest.mark.parametrize("packed", [False, True])
def test_an_epoch_has_every_pair_once_in_a_shuffled_order(config, packed):
    data = module(config, packed=packed)
    train = PairsTrain(data.train.rows, seed=1, batch_size=1)
    rows = len(data.train.rows)
    seen = [pairs_of(train[step]) for step in range(2 * rows)]
    epochs = [list(chain(*seen[:rows])), list(chain(*seen[rows:]))]
    held_out = list(chain(*map(pairs_of, data.val_dataloader())))
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0] + held_out) == sorted(wanted_ids(WORDS))


def test_a_step_is_the_next_rows_whatever_the_batch_size(config):
    data = module(config)
    one_by_one = PairsTrain(data.train.rows, seed=1, batch_size=1)
    batch = data.train[2]
    for i in range(8):
        assert torch.equal(batch.inputs[i], one_by_one[2 * 8 + i].inputs[0])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_workers_keep_the_order_and_a_resume_goes_on_in_it(config, workers, packed):
    data = module(config, num_workers=workers, packed=packed)
    again = module(config, packed=packed)
    data.start_step = 3
    for step, batch in zip(range(3, 8), data.train_dataloader(), strict=False):
        for ours, expected in zip(batch, again.train[step], strict=True):
            assert ours is expected or torch.equal(ours, expected)


@pytest.mark.parametrize("packed", [False, True])
def test_evaluation_has_one_pair_a_row_packed_or_not(config, packed, monkeypatch):
    monkeypatch.setattr("gpt2lab.data.pairs.EVAL_TOKENS", 16 * 4)
    data = module(config, packed=packed)
    batches = list(data.val_dataloader())
    assert [len(batch.inputs) for batch in batches[:-1]] == [4] * (len(batches) - 1)
    assert all(batch.documents is None for batch in batches)
    assert sum(len(pairs_of(batch)) for batch in batches) == len(data.held_out)
    assert all((batch.targets == 4).sum(dim=1).eq(1).all() for batch in batches)


def test_packed_rows_have_the_loss_of_padded_ones(config):
    padded, packed = module(config).train.rows, module(config, packed=True).train.rows
    assert len(packed) < 0.6 * len(padded)
    torch.manual_seed(0)
    model = GPT2(
        GPT2Config(n_layer=2, n_head=2, n_embd=16, block_size=16, vocab_size=5, dropout=0.0)
    ).double()
    one = torch.tensor(1)
    losses = []
    for rows in (padded, packed):
        model.zero_grad()
        loss = model.loss(rows.batch(np.arange(len(rows))), one)
        loss.backward()
        losses.append((loss.item(), model.transformer.wpe.weight.grad.clone()))
    # float64, summed in another order
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-12)
    torch.testing.assert_close(losses[0][1], losses[1][1], rtol=1e-9, atol=1e-12)


def test_the_characters_of_held_out_pairs_are_known(tmp_path):
    for name, source in (("a", "ab"), ("b", "xé")):
        line = json.dumps({"source": source, "target": "c"})
        (tmp_path / f"{name}.jsonl").write_text(line)
    config = char_config(path=str(tmp_path / "a.jsonl"), val_path=str(tmp_path / "b.jsonl"))
    tokenizer = module(config).tokenizer
    assert tokenizer.decode(range(6)) == "\nabcxé"
    assert tokenizer.end_of_text == 6
    assert tokenizer.vocab_size == 7


def test_questions_are_prefixes_and_answers_end(config):
    data = module(config)
    prompts, wanted = data.questions(4)
    assert len(prompts) == len(wanted) == 4
    known = set(wanted_ids(WORDS))
    for prompt, answer in zip(prompts, wanted, strict=True):
        assert (*prompt.tolist(), *answer.tolist()) in known
        assert prompt[-1] == 0
        assert answer[-1] == 4
    assert len(data.questions(10**6)[0]) == len(data.held_out)


def test_decoded_text_ends_before_the_end_token(config):
    data = module(config)
    assert data.decode([1, 2, 4, 3, 3]) == "ab"
    assert data.decode([1, 2, 3]) == "abc"


def test_the_fingerprint_names_the_examples(config, tmp_path):
    names = {
        module(config, **changes).fingerprint()
        for changes in ({}, {"packed": True}, {"context": 17}, {"val_share": 0.3})
    }
    assert len(names) == 4
    assert module(config).fingerprint() in names


def test_lengths_are_the_positions_that_pairs_take():
    pairs = encoded(("ab", "c"), ("", ""))
    assert pairs.lengths.tolist() == [4, 1]


@pytest.mark.parametrize("packed", [False, True])
def test_a_sample_is_named_by_its_line_of_the_file(tmp_path, packed):
    words = [("".join("ab"[int(bit)] for bit in f"{i:b}"), "c") for i in range(40)]
    lines = [json.dumps({"source": a, "target": b}) for a, b in words]
    path = tmp_path / "a.jsonl"
    path.write_text("\n\n".join(lines))  # the empty ones count as lines too
    data = module(char_config(path=str(path), packed=packed))
    named = [np.atleast_1d(name) for step in range(12) for name in data.sample_ids(step)]
    assert packed == any(len(lines) > 1 for lines in named)
    seen = [row for step in range(12) for row in data.train[step].split(1)]
    for lines, row in zip(named, seen, strict=True):
        assert pairs_of(row) == wanted_ids([words[(line - 1) // 2] for line in lines])


def test_a_date_is_named_by_its_day():
    config = PairsConfig(source=PairsSource.dates, tokenizer=Vocabulary.char, context=72)
    data = module(config)
    for name, inputs in zip(data.sample_ids(0), data.train[0].inputs, strict=True):
        day = dates.FIRST + datetime.timedelta(days=name - 1)
        assert f"\n{day.isoformat()}" in data.tokenizer.decode(inputs.tolist())
