"""What follows a prompt is a matter of the prompt, the seed and the sample's number alone."""

import warnings

import pytest
import torch

from gpt2lab.config import SamplingConfig
from gpt2lab.errors import DataError
from gpt2lab.generation import decode, generate, generate_step, pack
from gpt2lab.generation.decoding import where_tokens_are_chosen
from gpt2lab.generation.samplers import uniforms
from gpt2lab.model import GPT2

PROMPTS = [torch.tensor(ids) for ids in ([3, 1, 4], [1], [5, 9, 2, 6, 5], [3, 5, 8])]
GREEDY = SamplingConfig(temperature=0)


@pytest.fixture
def model(tiny_model) -> GPT2:
    """Weights so large that tokens differ, in float64 so that the order of sums decides no tie."""
    for parameter in tiny_model.parameters():
        parameter.data *= 5
    return tiny_model.double()


def continued(model, prompts, new_tokens, **settings) -> list[list[int]]:
    settings = {"temperature": 0, "strip_prompt": True, "batch_size": 100} | settings
    return [r.tolist() for r in generate(model, prompts, max_new_tokens=new_tokens, **settings)]


def by_whole_passes(model, prompt: torch.Tensor, new_tokens: int) -> list[int]:
    """Greedy without a cache: each token from a pass over the last block_size ones."""
    row = prompt.clone()
    for _ in range(new_tokens):
        likeliest = model(row[None, -model.config.block_size :])[0, -1].argmax()
        row = torch.cat([row, likeliest[None]])
    return row[len(prompt) :].tolist()


def test_each_token_is_the_likeliest_after_those_before_it(model):
    expected = [by_whole_passes(model, prompt, 7) for prompt in PROMPTS]
    assert continued(model, PROMPTS, 7) == expected
    assert len(set(map(tuple, expected))) > 1


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_a_row_of_a_ragged_batch_gives_what_it_gives_alone(model, temperature):
    together = continued(model, PROMPTS, 7, temperature=temperature, seed=3)
    steps = [
        list(
            decode(
                model,
                prompt[None],
                torch.tensor([len(prompt)]),
                torch.tensor([len(prompt) + 7]),
                uniforms(3, [number], 7),
                SamplingConfig(temperature=temperature),
            )
        )
        for number, prompt in enumerate(PROMPTS)
    ]
    assert together == [[int(step.token_ids) for step in row] for row in steps]


def test_samples_do_not_depend_on_how_many_are_made_at_once(model):
    one, three, all_ = (
        continued(model, PROMPTS, 6, temperature=1.0, num_samples=3, batch_size=size)
        for size in (1, 3, 100)
    )
    assert one == three == all_
    assert len(set(map(tuple, all_))) > 6


def test_draws_follow_their_seed_and_leave_other_random_numbers_alone(model):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, again, other = (
        continued(model, PROMPTS, 8, temperature=1.0, seed=seed) for seed in (5, 5, 6)
    )
    assert first == again != other
    assert torch.equal(torch.rand(3), expected)


def test_a_low_temperature_comes_to_the_likeliest(model):
    assert continued(model, PROMPTS, 6, temperature=1e-6) == continued(model, PROMPTS, 6)


def test_beyond_the_context_the_oldest_tokens_are_dropped(model):
    # The model has 12 positions: one token is dropped at a time, an eighth rounded down.
    long, short = torch.arange(10), torch.tensor([7])
    assert continued(model, [long, short], 9) == [
        by_whole_passes(model, long, 9),
        by_whole_passes(model, short, 9),
    ]


def test_an_eighth_of_the_context_is_dropped_at_a_time(tiny_config):
    tiny_config.block_size = 24
    model = GPT2(tiny_config).eval().double()
    seen = []
    inner = model.build_cache
    model.build_cache = lambda ids, length: seen.append(ids.shape[1]) or inner(ids, length)
    continued(model, [torch.arange(8)], 30)
    # 8 tokens, then 24 + 1 - 3 whenever there are 24: 1 made of the first, 30 - 1 read in all.
    assert seen == [8, 22, 22, 22, 22, 22]


def test_generation_can_end_at_the_context(model):
    # 12 positions hold 12 tokens, and the last of them tells a thirteenth.
    (found,) = continued(model, [torch.arange(10)], 9, beyond_context="stop")
    assert found == by_whole_passes(model, torch.arange(10), 3)


def test_a_prompt_longer_than_the_context_keeps_its_end_with_a_warning(model):
    long = torch.arange(40) % 11
    with pytest.warns(UserWarning, match="has 40 tokens, the model's context is 12"):
        found = continued(model, [long], 2)
    assert found == [by_whole_passes(model, long, 2)]


def test_rows_end_with_their_stop_token_and_not_with_one_in_the_prompt(model):
    whole = continued(model, PROMPTS, 7)
    stop = whole[0][3]
    prompts = [torch.cat([torch.tensor([stop]), prompt]) for prompt in PROMPTS]
    whole = continued(model, prompts, 7)
    expected = [row[: row.index(stop)] if stop in row else row for row in whole]
    assert continued(model, prompts, 7, stop_token_ids=[stop]) == expected
    assert continued(model, prompts, 7, stop_token_ids=torch.tensor([stop])) == expected
    assert expected != whole
    assert any(expected)


def test_a_row_that_ends_at_once_has_no_ids(model):
    found = generate(model, PROMPTS[0], strip_prompt=True, stop_token_ids=range(11))
    assert (found.dtype, found.tolist()) == (torch.int64, [])


@pytest.mark.parametrize("row", [[], [11], [-1], [1.0]])
def test_what_is_no_row_of_ids_is_refused(model, row):
    with pytest.raises(DataError, match="prompts: "):
        generate(model, [torch.tensor([1]), torch.tensor(row)])


def test_no_token_is_made_once_every_row_has_ended(model):
    calls = []
    inner = model.call_with_cache
    model.call_with_cache = lambda *args: calls.append(1) or inner(*args)
    continued(model, PROMPTS[:1], 9, stop_token_ids=range(11))
    assert not calls


def test_a_penalty_on_repetition_counts_prompt_and_answer_but_no_padding(model):
    for parameter in model.transformer.wpe.parameters():
        parameter.data.zero_()
    without = continued(model, PROMPTS, 6)
    strong = continued(model, PROMPTS, 6, repetition_penalty=1e6)
    assert any(len(set(row)) < len(row) for row in without)
    # 11 ids: none comes twice, nor one of the prompt.
    for prompt, row in zip(PROMPTS, strong, strict=True):
        assert len({*prompt.tolist(), *row}) == len(set(prompt.tolist())) + len(row)


def test_log_probabilities_are_those_of_the_model_before_sampling(model):
    (step, *_) = decode(
        model,
        PROMPTS[0][None],
        torch.tensor([3]),
        torch.tensor([5]),
        uniforms(0, [0], 2),
        SamplingConfig(temperature=0.5, top_k=2),
        num_alternatives=10,
    )
    expected = model(PROMPTS[0][None])[0, -1].float().log_softmax(-1)
    assert torch.allclose(step.logprobs, expected[step.token_ids])
    values, ids = step.alternatives
    assert torch.allclose(values[0], expected.sort(descending=True).values[:10])
    assert torch.equal(expected[ids[0]], values[0])


def filled(model, prompts, length, **settings):
    inputs = pack([p.tolist() for p in prompts], length)
    return inputs, generate_step(model, inputs, **settings)


def test_generate_step_fills_each_row_behind_its_prompt(model):
    inputs, found = filled(model, PROMPTS, 9)
    for row, prompt in zip(found["token_ids"], PROMPTS, strict=True):
        assert row.tolist() == [*prompt, *by_whole_passes(model, prompt, 9 - len(prompt))]
    assert found["padding_mask"].all()
    assert not inputs["token_ids"][1, 1:].any()  # what was given is left as it was


def test_generate_step_masks_what_stands_behind_the_first_new_stop_token(model):
    _, whole = filled(model, PROMPTS, 10)
    stop = whole["token_ids"][2, 7].item()
    _, found = filled(model, PROMPTS, 10, stop_token_ids=(stop,))
    for row, mask, prompt in zip(
        whole["token_ids"].tolist(), found["padding_mask"], PROMPTS, strict=True
    ):
        new = row[len(prompt) :]
        end = len(prompt) + new.index(stop) + 1 if stop in new else 10
        assert mask.tolist() == [True] * end + [False] * (10 - end)
    kept = found["padding_mask"]
    assert torch.equal(found["token_ids"][kept], whole["token_ids"][kept])


def test_generate_step_refuses_a_row_without_a_token(model):
    inputs = {"token_ids": torch.zeros(2, 4).long(), "padding_mask": torch.zeros(2, 4).bool()}
    with pytest.raises(ValueError, match="a row has no token"):
        generate_step(model, inputs)


def test_ids_come_as_one_row_as_several_or_as_a_table(model):
    table = torch.tensor([[3, 1, 4], [3, 5, 8]])
    settings = {"temperature": 0, "max_new_tokens": 3}
    rows = generate(model, table, **settings)
    assert [row.tolist()[:3] for row in rows] == table.tolist()
    assert torch.equal(generate(model, table[0], **settings), rows[0])
    assert torch.equal(generate(model, list(table), **settings)[1], rows[1])


def test_a_model_in_training_generates_without_dropout(tiny_config):
    tiny_config.dropout = 0.5
    model = GPT2(tiny_config)
    assert continued(model, PROMPTS, 6) == continued(model.eval(), PROMPTS, 6)
    model.train()
    one = torch.tensor([1])
    steps = decode(model, one[None], one, 5 * one, uniforms(0, [0], 4), GREEDY)
    next(steps)
    assert model.training  # while whoever takes the steps does something else


def test_generate_step_leaves_full_rows_as_they_are(model):
    rows = [torch.arange(6), torch.tensor([1])]
    inputs, found = filled(model, rows, 6)
    assert found["token_ids"][0].tolist() == list(range(6))
    assert found["token_ids"][1].tolist() == [1, *by_whole_passes(model, rows[1], 5)]
    full = {name: tensor[:1] for name, tensor in inputs.items()}
    assert torch.equal(generate_step(model, full)["token_ids"], full["token_ids"])


def test_generate_step_refuses_a_prompt_beyond_the_context(model):
    inputs = pack([[1] * 13], 20)
    with pytest.raises(ValueError, match="13 tokens; the model has 12 positions"):
        generate_step(model, inputs)


def test_generate_step_refuses_padding_before_a_token(model):
    mask = torch.tensor([[True, False, True, False]])
    with pytest.raises(ValueError, match="pad on the right"):
        generate_step(model, {"token_ids": torch.ones(1, 4).long(), "padding_mask": mask})


def test_texts_of_every_length_share_one_graph(model, monkeypatch):
    import torch._dynamo.testing

    from gpt2lab.generation.compiled import CompiledStep

    counter = torch._dynamo.testing.CompileCounter()
    step = CompiledStep(mode=None, backend=counter)
    monkeypatch.setattr("gpt2lab.generation.decoding.compiled_step", lambda: step)
    for length in range(1, 11):
        prompt = torch.arange(length)
        lengths = torch.tensor([length])
        steps = decode(
            model,
            prompt[None],
            lengths,
            lengths + 2,
            uniforms(0, [0], 2),
            GREEDY,
            compiled=True,
        )
        assert [int(s.token_ids) for s in steps] == by_whole_passes(model, prompt, 2)
    assert step.works
    assert counter.frame_count == 1


def test_there_is_a_graph_for_each_of_many_batch_sizes(model):
    from gpt2lab.generation.compiled import CompiledStep

    step = CompiledStep(mode=None, backend="eager")
    for B in range(1, 13):
        _, cache = model.build_cache(torch.ones(B, 2).long(), 12)
        step(model, torch.ones(B, 1).long(), cache, 2)
        assert step.works


def test_samples_of_one_prompt_read_it_once(model):
    sizes = []
    inner = model.build_cache
    model.build_cache = lambda ids, length: sizes.append(len(ids)) or inner(ids, length)
    continued(model, PROMPTS[:1], 4, num_samples=5)
    continued(model, PROMPTS, 4)
    assert sizes == [1, 4]


def test_one_graph_serves_every_position(model):
    """As on a GPU, but for the compiler behind it: whole graphs, made once and used again."""
    import torch._dynamo.testing

    from gpt2lab.generation.compiled import CompiledStep

    counter = torch._dynamo.testing.CompileCounter()
    step = CompiledStep(mode=None, backend=counter)
    _, cache = model.build_cache(PROMPTS[2][None], 12)
    static = cache.clone()
    for position in range(5, 12):
        token = torch.tensor([[position % 11]])
        expected = model.call_with_cache(token, cache, position)[0][:, -1]
        assert torch.allclose(step(model, token, static, position), expected)
    assert step.works
    assert counter.frame_count == 1


def test_a_compiler_that_fails_is_told_of_once_and_done_without(model):
    from gpt2lab.generation.compiled import CompiledStep

    def broken(*_):
        raise RuntimeError("no compiler here")

    step = CompiledStep(mode=None, backend=broken)
    _, cache = model.build_cache(PROMPTS[2][None], 12)
    expected = model.call_with_cache(torch.tensor([[1]]), cache.clone(), 5)[0][:, -1]
    with pytest.warns(UserWarning, match="compile: does not work here"):
        assert torch.equal(step(model, torch.tensor([[1]]), cache, 5), expected)
    with warnings.catch_warnings(action="error"):
        assert torch.equal(step(model, torch.tensor([[1]]), cache, 5), expected)


def test_beside_a_device_without_fp64_tokens_are_chosen_on_the_cpu():
    for device, expected in (("mps", "cpu"), ("cuda", "cuda"), ("cpu", "cpu")):
        assert where_tokens_are_chosen(torch.device(device)).type == expected
