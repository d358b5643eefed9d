from itertools import islice

from gpt2lab.data.order import EVALUATION, StepSampler, step_rng


def test_a_step_draws_the_same_numbers_whatever_came_before():
    first = step_rng(3, 7).integers(1000, size=5)
    step_rng(3, 6).integers(1000, size=99)
    assert (step_rng(3, 7).integers(1000, size=5) == first).all()


def test_the_numbers_are_the_same_on_every_machine():
    assert step_rng(0, 0).integers(1000, size=4).tolist() == [34, 11, 611, 241]
    assert step_rng(2**63 - 1, 10**12).integers(1000, size=2).tolist() == [455, 549]


def test_seeds_steps_and_streams_differ():
    draws = {
        tuple(step_rng(*key).integers(2**62, size=2).tolist())
        for key in ((0, 0), (0, 1), (1, 0), (1, 1), (0, 0, EVALUATION))
    }
    assert len(draws) == 5


def test_a_resume_is_an_integer():
    assert list(islice(StepSampler(0), 6))[4:] == list(islice(StepSampler(4), 2))
