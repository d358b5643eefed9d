import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from gpt2lab.config import SamplingConfig
from gpt2lab.generation.samplers import (
    alternatives,
    distribution,
    draw,
    likeliest,
    log_probabilities,
    min_p,
    next_token,
    repetition_penalty,
    temperature,
    top_k,
    top_p,
    uniforms,
    warped,
)

V_GPT2 = 50257
BELOW_ONE = math.nextafter(1.0, 0.0)

FOUR = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()


def left(logits: torch.Tensor) -> list[list[int]]:
    """The ids of each row that are not excluded."""
    return [(row > -torch.inf).nonzero().flatten().tolist() for row in logits]


def seen_in(ids: torch.Tensor, V: int) -> torch.Tensor:
    return torch.zeros(len(ids), V, dtype=torch.bool).scatter_(1, ids, True)


# By hand


def test_a_repeated_token_becomes_less_likely_whatever_its_sign():
    logits = torch.tensor([[2.0, -1.0, 1.0, -3.0]])
    seen = torch.tensor([[True, True, False, False]])
    assert repetition_penalty(logits, seen, 2.0).tolist() == [[1.0, -2.0, 1.0, -3.0]]


def test_temperature_divides_the_logits():
    # At 1/2 probabilities are squared: 0.25, 0.09, 0.0225, 0.0025, of 0.365.
    expected = torch.tensor([[0.25, 0.09, 0.0225, 0.0025]]) / 0.365
    torch.testing.assert_close(temperature(FOUR, 0.5).softmax(-1), expected)


@pytest.mark.parametrize(("k", "count"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 4), (10**9, 4)])
def test_top_k_leaves_the_k_likeliest(k, count):
    shuffled = FOUR[:, [3, 1, 0, 2]]
    expected = sorted([2, 1, 3, 0][:count])
    assert left(top_k(shuffled, k)) == [expected]


@pytest.mark.parametrize(
    ("p", "count"), [(1e-9, 1), (0.4, 1), (0.6, 2), (0.79, 2), (0.81, 3), (0.94, 3), (0.96, 4)]
)
def test_top_p_keeps_the_token_at_which_the_sum_crosses_p(p, count):
    shuffled = FOUR[:, [3, 1, 0, 2]]
    expected = sorted([2, 1, 3, 0][:count])
    assert left(top_p(shuffled, p)) == [expected]


@pytest.mark.parametrize(
    ("p", "count"), [(0, 4), (0.09, 4), (0.25, 3), (0.31, 2), (0.61, 1), (1, 1)]
)
def test_min_p_is_a_share_of_the_likeliest(p, count):
    assert left(min_p(FOUR, p)) == [list(range(count))]


def test_a_sum_that_reaches_p_exactly_is_enough():
    halves = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    assert left(top_p(halves, 0.75)) == [[0, 1]]
    assert left(top_p(torch.zeros(1, 4), 0.5)) == [[2, 3]]
    assert left(top_p(torch.zeros(1, 10), 0.9)) == [[*range(1, 10)]]  # 0.1 is above 1 - 0.9


def test_of_equally_likely_tokens_top_p_leaves_only_as_many_as_it_needs():
    logits = torch.tensor([[1.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0]])
    # e / (e + 4) = 0.40, and 0.15 for each other one
    assert left(top_p(logits, 0.6)) == [[0, 3, 4], [2, 3, 4]]


def test_top_k_keeps_those_as_likely_as_the_last():
    assert left(top_k(torch.tensor([[3.0, 1.0, 1.0, 0.0]]), 2)) == [[0, 1, 2]]


# Against transformers


def theirs(sampling: SamplingConfig, ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    processors = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        processors.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature is not None:
        processors.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k is not None:
        processors.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p is not None and sampling.top_p < 1:  # their generate leaves it out at 1
        processors.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p is not None:
        processors.append(MinPLogitsWarper(sampling.min_p))
    return processors(ids, logits.float())


SHARES = st.floats(0.01, 1.0)
SAMPLINGS = st.builds(
    SamplingConfig,
    repetition_penalty=st.just(1.0) | st.floats(0.5, 2.0),
    temperature=st.none() | st.floats(0.1, 5.0),
    top_k=st.none() | st.integers(1, 150),
    top_p=st.none() | SHARES,
    min_p=st.none() | st.just(0.0) | SHARES,
)


@settings(max_examples=150, deadline=None)
@given(sampling=SAMPLINGS, seed=st.integers(0, 2**32), V=st.integers(2, 100))
def test_logits_equal_those_of_transformers(sampling, seed, V):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, V, generator=random) * 3
    ids = torch.randint(0, V, (3, 5), generator=random)
    ours = warped(logits, sampling, seen_in(ids, V))
    assert torch.equal(ours, theirs(sampling, ids, logits))


@settings(max_examples=100, deadline=None)
@given(sampling=SAMPLINGS, seed=st.integers(0, 2**32))
def test_logits_in_bf16_are_left_as_many_as_by_transformers(sampling, seed):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 300, generator=random).bfloat16()  # many are equal
    ids = torch.randint(0, 300, (3, 5), generator=random)
    ours = warped(logits, sampling, seen_in(ids, 300))
    assert ours.dtype == torch.float32
    # Which of equals stay is theirs to choose, not how many.
    assert torch.equal(ours.sort(-1).values, theirs(sampling, ids, logits).sort(-1).values)


@pytest.mark.parametrize("spread", [0.5, 2.0, 4.0])
@pytest.mark.parametrize(
    "sampling",
    [
        SamplingConfig(top_k=40),
        SamplingConfig(top_k=20_000),
        SamplingConfig(top_p=0.1),
        SamplingConfig(top_p=0.95),
        SamplingConfig(min_p=0.05),
        SamplingConfig(1.3, 0.7, 5000, 0.9, 0.01),
    ],
)
def test_the_vocabulary_of_gpt2_is_left_as_by_transformers(sampling, spread):
    logits = torch.randn(2, V_GPT2) * spread
    ids = torch.randint(0, V_GPT2, (2, 100))
    ours = warped(logits, sampling, seen_in(ids, V_GPT2))
    assert torch.equal(ours, theirs(sampling, ids, logits))


# Boundaries


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingConfig(),
        SamplingConfig(1.0, 1.0, V_GPT2, 1.0, 0.0),
        SamplingConfig(top_k=10**12),
    ],
)
def test_what_changes_nothing_changes_nothing(sampling):
    logits = torch.randn(2, 100)
    logits[:, 7] = -1e4  # of probability 0
    assert torch.equal(warped(logits, sampling), logits)


def test_a_penalty_of_1_changes_nothing():
    logits = torch.randn(2, 100)
    assert torch.equal(repetition_penalty(logits, logits > 0, 1.0), logits)


def test_temperature_0_has_one_token_the_first_of_the_likeliest():
    logits = torch.tensor([[1.0, 4.0, 4.0, 2.0], [3.0, -torch.inf, 1.0, 0.0]])
    expected = [[0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    assert distribution(logits, SamplingConfig(temperature=0.0)).tolist() == expected
    assert left(likeliest(logits)) == [[1], [0]]


def test_a_penalty_counts_at_temperature_0():
    logits, seen = torch.tensor([[3.0, 2.0]]), torch.tensor([[True, False]])
    sampling = SamplingConfig(repetition_penalty=2.0, temperature=0.0)
    assert distribution(logits, sampling, seen).tolist() == [[0.0, 1.0]]
    assert next_token(logits, sampling, torch.zeros(1), seen).tolist() == [1]


EXTREME = torch.tensor([1e4, -1e4, -torch.inf, 9000.0, 0.0, -torch.inf])


@pytest.mark.parametrize("t", [1e-6, 1e-40, 5e-324])
def test_a_temperature_near_0_comes_to_the_likeliest(t):
    found = distribution(EXTREME[None], SamplingConfig(temperature=t))
    assert found.tolist() == [[1.0, 0.0, 0.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("t", [1e30, 1e300])
def test_a_temperature_without_bounds_makes_all_that_is_possible_as_likely(t):
    found = distribution(EXTREME[None], SamplingConfig(temperature=t))
    assert found.tolist() == [[0.25, 0.25, 0.0, 0.25, 0.25, 0.0]]


@settings(max_examples=200, deadline=None)
@given(
    sampling=SAMPLINGS, seed=st.integers(0, 2**32), dtype=st.sampled_from(["float32", "bfloat16"])
)
def test_extreme_logits_have_a_distribution_with_the_likeliest_in_it(sampling, seed, dtype):
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    logits = EXTREME[order][None].to(getattr(torch, dtype))
    found = distribution(logits, sampling, torch.zeros(1, 6, dtype=torch.bool))
    assert found.dtype == torch.float32
    assert found.sum().item() == pytest.approx(1)
    assert found.max() == found[0, (order == 0).nonzero()]
    assert not found[0, logits[0] == -torch.inf].any()


# Purity


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_are_never_written_to(dtype):
    logits = torch.randn(2, 100).to(dtype)
    seen = torch.rand(2, 100) < 0.3
    before = logits.clone()
    for sampling in (SamplingConfig(1.3, 0.7, 50, 0.9, 0.01), SamplingConfig(1.3, 0.0)):
        next_token(logits, sampling, torch.rand(2), seen)
    for changed in (
        repetition_penalty(logits, seen, 1.3),
        temperature(logits, 0.5),
        top_k(logits, 5),
        top_p(logits, 0.5),
        min_p(logits, 0.5),
        likeliest(logits),
    ):
        changed.fill_(7)
    assert torch.equal(logits, before)


def test_a_row_does_not_depend_on_the_others():
    # One sharp, one flat, one in between.
    logits = torch.randn(3, V_GPT2) * torch.tensor([[9.0], [0.1], [2.0]])
    sampling = SamplingConfig(1.3, 0.7, 20_000, 0.9, 1e-4)
    seen, uniform = torch.rand(3, V_GPT2) < 0.01, torch.rand(3, dtype=torch.float64)
    together = warped(logits, sampling, seen)
    ids = next_token(logits, sampling, uniform, seen)
    for row in range(3):
        one = slice(row, row + 1)
        assert torch.equal(warped(logits[one], sampling, seen[one]), together[one])
        assert next_token(logits[one], sampling, uniform[one], seen[one]) == ids[row]


# Draws


@pytest.mark.parametrize(
    ("uniform", "token"),
    [(0.0, 1), (0.2, 1), (0.25, 3), (0.5, 3), (0.7499, 3), (0.75, 4), (BELOW_ONE, 4), (1.0, 4)],
)
@pytest.mark.parametrize("scale", [1.0, 0.3, 3e4, 1e-30])
def test_a_draw_is_where_the_sum_passes_the_uniform_number(uniform, token, scale):
    probabilities = torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0, 0.0]]) * scale
    assert draw(probabilities, torch.tensor([uniform], dtype=torch.float64)).tolist() == [token]


@settings(max_examples=150, deadline=None)
@given(
    row=st.lists(st.just(0.0) | st.floats(0, 1, width=32), min_size=1, max_size=30).filter(any),
    uniform=st.sampled_from([0.0, 5e-324, 1 - 2**-24, BELOW_ONE]) | st.floats(0, BELOW_ONE),
)
def test_a_token_of_probability_0_is_never_drawn(row, uniform):
    (token,) = draw(torch.tensor([row]), torch.tensor([uniform], dtype=torch.float64))
    assert row[token] > 0


def test_each_row_is_drawn_by_its_own_number():
    probabilities = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
    assert draw(probabilities, torch.tensor([0.9, 0.1, 0.4])).tolist() == [1, 1, 2]


def test_sums_are_exact_to_the_last_token():
    # In fp32 the sum of 50,257 numbers errs by several tokens.
    ids = torch.tensor([0, 1, 777, 25_000, 50_000, 50_256])
    probabilities = torch.full((6, V_GPT2), 1 / V_GPT2)
    assert draw(probabilities, (ids.double() + 0.01) / V_GPT2).tolist() == ids.tolist()
    assert draw(probabilities, (ids.double() + 0.99) / V_GPT2).tolist() == ids.tolist()


def test_a_rare_token_is_drawn_as_rarely_as_it_is():
    probabilities = torch.tensor([[1.0, 1e-12]]).expand(3, 2)
    uniform = torch.tensor([1 - 2e-12, 1 - 0.9e-12, BELOW_ONE], dtype=torch.float64)
    assert draw(probabilities, uniform).tolist() == [0, 1, 1]


def test_draws_follow_the_distribution():
    logits = torch.randn(1, 20) * 2
    expected = distribution(logits, SamplingConfig(temperature=0.8, top_k=15))
    uniform = uniforms(3, [0], 100_000)[0]
    counts = draw(expected.expand(100_000, 20), uniform).bincount(minlength=20)
    possible = expected[0] > 0
    assert possible.sum() == 15
    assert not counts[~possible].any()
    expected_counts = 100_000 * expected[0, possible]
    chi_square = ((counts[possible] - expected_counts) ** 2 / expected_counts).sum()
    assert chi_square < 36.1  # 14 degrees of freedom: exceeded once in a thousand


@pytest.mark.parametrize("sampling", [SamplingConfig(), SamplingConfig(1.2, 0.8, 40, 0.95, 0.02)])
def test_the_next_token_is_drawn_from_the_distribution(sampling):
    logits, uniform = torch.randn(50, 200).bfloat16() * 3, torch.rand(50, dtype=torch.float64)
    seen = torch.rand(50, 200) < 0.1
    found = next_token(logits, sampling, uniform, seen)
    assert found.tolist() == draw(distribution(logits, sampling, seen), uniform).tolist()
    assert len(set(found.tolist())) > 10


def test_the_next_token_at_temperature_0_is_the_likeliest():
    logits = torch.randn(4, 50)
    found = next_token(logits, SamplingConfig(temperature=0.0, top_p=0.5), torch.rand(4))
    assert found.tolist() == logits.argmax(-1).tolist()


# Uniform numbers


def test_the_numbers_of_a_row_depend_on_its_seed_and_its_number_alone():
    numbers = uniforms(7, range(5), 100)
    assert numbers.dtype == torch.float64
    assert torch.equal(uniforms(7, [3, 0], 100), numbers[[3, 0]])
    assert torch.equal(uniforms(7, [3], 10)[0], numbers[3, :10])
    assert torch.equal(uniforms(7, range(5), 1), numbers[:, :1])


def test_seeds_and_rows_have_numbers_of_their_own():
    seeds = [0, 5, 5 + 2**32, 2**63 - 1]
    first = [uniforms(seed, [0, 1, 2, 2**32], 2) for seed in seeds]
    assert len(torch.cat(first).flatten().unique()) == len(seeds) * 4 * 2


def test_the_numbers_lie_in_0_to_1():
    numbers = uniforms(0, range(10), 10_000)
    assert (numbers >= 0).all()
    assert (numbers < 1).all()
    assert numbers.mean().item() == pytest.approx(0.5, abs=0.005)  # 5.5 standard errors


def test_the_numbers_stay_what_they_were():
    expected = [[0.7211967525405779, 0.026925274171797242], [0.674438164022751, 0.4788968376798527]]
    assert uniforms(0, [0, 1], 2).tolist() == expected


# The model's own


def test_log_probabilities_are_the_models_own_in_fp32():
    logits = torch.tensor([[0.5, 0.3, 0.2]]).log().bfloat16()
    found = log_probabilities(logits)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.exp().sum(), torch.tensor(1.0))
    torch.testing.assert_close(found, torch.log_softmax(logits.float(), -1))


def test_alternatives_are_the_likeliest_first():
    values, ids = alternatives(FOUR[:, [3, 1, 0, 2]], 3)
    assert ids.tolist() == [[2, 1, 3]]
    torch.testing.assert_close(values.exp(), torch.tensor([[0.5, 0.3, 0.15]]))
    assert [tensor.shape for tensor in alternatives(FOUR, 10)] == [(1, 4), (1, 4)]


@pytest.mark.gpu
def test_a_gpu_leaves_and_draws_the_same_tokens():
    logits, uniform = torch.randn(4, V_GPT2) * 2, uniforms(0, range(4), 1)[:, 0]
    for sampling in (SamplingConfig(top_k=40), SamplingConfig(top_p=0.9), SamplingConfig()):
        found = next_token(logits.cuda(), sampling, uniform)
        assert found.tolist() == next_token(logits, sampling, uniform).tolist()


@pytest.mark.gpu
def test_a_gpu_never_draws_a_token_of_probability_0():
    probabilities = torch.rand(64, V_GPT2) * (torch.rand(64, V_GPT2) < 0.01)
    for uniform in (0.0, 0.5, BELOW_ONE):
        numbers = torch.full((64,), uniform, dtype=torch.float64)
        ids = draw(probabilities.cuda(), numbers).cpu()
        assert (probabilities.gather(1, ids[:, None]) > 0).all()
