import torch

from gpt2lab.generation import generate

PROMPTS = [torch.tensor(ids) for ids in ([3, 1, 4], [1], [5, 9, 2, 6, 5], [3, 5, 8])]


def test_each_token_is_the_likeliest_after_those_before_it(tiny_model):
    (found,) = generate(tiny_model, PROMPTS[:1], 6)
    row = torch.cat([PROMPTS[0], found])
    likeliest = tiny_model(row[None])[0].argmax(-1)
    assert found.tolist() == likeliest[2:-1].tolist()


def test_a_row_of_a_ragged_batch_gives_what_it_gives_alone(tiny_model):
    tiny_model.double()  # so that the order of sums decides no tie
    alone = [generate(tiny_model, [prompt], 6)[0].tolist() for prompt in PROMPTS]
    assert [found.tolist() for found in generate(tiny_model, PROMPTS, 6)] == alone
    assert len(set(map(tuple, alone))) > 1


def test_beyond_the_context_the_oldest_tokens_are_forgotten(tiny_model):
    tiny_model.double()
    prompts = [torch.arange(10), torch.tensor([7])]  # the model has 12 positions
    long, short = generate(tiny_model, prompts, 8)
    seen = torch.cat([prompts[0], long])[-13:-1]
    assert long[-1] == tiny_model(seen[None])[0, -1].argmax()
    assert short.tolist() == generate(tiny_model, prompts[1:], 8)[0].tolist()


def test_draws_follow_their_seed_and_leave_other_random_numbers_alone(tiny_model):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, again, other = (
        torch.cat(generate(tiny_model, PROMPTS, 8, temperature=1.0, seed=seed)).tolist()
        for seed in (5, 5, 6)
    )
    assert first == again != other
    assert torch.equal(torch.rand(3), expected)


def test_a_low_temperature_comes_to_the_likeliest(tiny_model):
    cold = generate(tiny_model, PROMPTS, 6, temperature=1e-6)
    likeliest = generate(tiny_model, PROMPTS, 6)
    assert [row.tolist() for row in cold] == [row.tolist() for row in likeliest]
