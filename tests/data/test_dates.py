import datetime

import pytest

from gpt2lab.data.dates import PHRASINGS, in_words, ordinal, pairs, suffix, year_in_words

DAY = datetime.date(1984, 3, 3)


@pytest.mark.parametrize(
    ("phrasing", "words"),
    [
        ("the {ordinal} of {month}, {year_in_words}", "the third of March, nineteen eighty-four"),
        ("{month} the {ordinal}, {year_in_words}", "March the third, nineteen eighty-four"),
        ("{weekday}, the {day}{suffix} of {month} {year}", "Saturday, the 3rd of March 1984"),
        ("{month} {day}{suffix}, {year}", "March 3rd, 1984"),
        ("{day} {mon} {year}", "3 Mar 1984"),
    ],
)
def test_the_phrasings(phrasing, words):
    assert phrasing in PHRASINGS
    assert in_words(DAY, phrasing) == words


@pytest.mark.parametrize(
    ("year", "words"),
    [
        (1900, "nineteen hundred"),
        (1905, "nineteen oh-five"),
        (1913, "nineteen thirteen"),
        (1984, "nineteen eighty-four"),
        (2000, "two thousand"),
        (2009, "two thousand and nine"),
        (2010, "twenty ten"),
        (2050, "twenty fifty"),
        (2099, "twenty ninety-nine"),
    ],
)
def test_years_as_they_are_read_aloud(year, words):
    assert year_in_words(year) == words


def test_the_days_of_a_month():
    days = (1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 30)
    assert " ".join(f"{n}{suffix(n)}" for n in days) == (
        "1st 2nd 3rd 4th 11th 12th 13th 21st 22nd 23rd 30th"
    )
    assert " ".join(map(ordinal, (1, 2, 3, 5, 8, 9, 12, 20, 21, 30))) == (
        "first second third fifth eighth ninth twelfth twentieth twenty-first thirtieth"
    )
    assert len({ordinal(n) for n in range(1, 32)}) == 31


def test_every_day_of_two_centuries_is_one_pair():
    found = pairs()
    assert len(found) == 73_049  # 200 years of 365 days and 49 leap days: 1900 had none
    assert (found[0][1], found[-1][1]) == ("1900-01-01", "2099-12-31")
    assert len({source for source, _ in found}) == len({target for _, target in found}) == 73_049


def test_every_process_words_the_days_alike():
    words = dict(map(reversed, pairs()))
    assert words["1984-03-03"] == "Saturday, the 3rd of March 1984"
    assert words["1985-10-26"] == "October the twenty-sixth, nineteen eighty-five"
    assert words["2038-01-19"] == "January 19th, 2038"


def test_every_phrasing_is_as_frequent_as_any_other():
    words = dict(map(reversed, pairs()))
    days = list(map(datetime.date.fromisoformat, words))[::10]
    for phrasing in PHRASINGS:
        share = sum(words[day.isoformat()] == in_words(day, phrasing) for day in days) / len(days)
        # four standard deviations of 7,305 throws of a fair die with 12 sides; May is its own mon
        assert share == pytest.approx(1 / 12, abs=0.013 + 1 / 12 / 12)
