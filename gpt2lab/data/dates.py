"""The example of a prefix task: dates in words, to be written as ISO 8601 has them.

Every day from 1900 to 2099 is one pair, in one phrasing:

    Saturday, the 3rd of March 1984                   1984-03-03
    October the twenty-sixth, nineteen eighty-five    1985-10-26
"""

import datetime
from hashlib import blake2b

FIRST = datetime.date(1900, 1, 1)
LAST = datetime.date(2099, 12, 31)

# Spelled out, so that the computer's language plays no part.
# fmt: off
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = [
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
]
ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen",
    "eighteen", "nineteen",
]
TENS = [
    "zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
]
# fmt: on
ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
    "twenty": "twentieth",
    "thirty": "thirtieth",
}

PHRASINGS = (
    "the {ordinal} of {month}, {year_in_words}",
    "{month} the {ordinal}, {year_in_words}",
    "{weekday}, the {ordinal} of {month} {year}",
    "{weekday}, the {day}{suffix} of {month} {year}",
    "{weekday}, {day} {month} {year}",
    "{weekday}, {month} {day}{suffix}, {year}",
    "{month} {day}{suffix}, {year}",
    "{day}{suffix} {month} {year}",
    "{month} {day}, {year}",
    "{day} {mon} {year}",
    "{mon} {day}, {year}",
    "the {day}{suffix} of {month}, {year_in_words}",
)


def pairs() -> list[tuple[str, str]]:
    """Each day in words and in ISO form, in the order of the days; 73,049 of them."""
    days = map(datetime.date.fromordinal, range(FIRST.toordinal(), LAST.toordinal() + 1))
    return [(in_words(day, _phrasing(day)), day.isoformat()) for day in days]


def in_words(day: datetime.date, phrasing: str) -> str:
    """The day in one of the PHRASINGS."""
    month = MONTHS[day.month - 1]
    return phrasing.format(
        weekday=WEEKDAYS[day.weekday()],
        day=day.day,
        suffix=suffix(day.day),
        ordinal=ordinal(day.day),
        month=month,
        mon=month[:3],
        year=day.year,
        year_in_words=year_in_words(day.year),
    )


def _phrasing(day: datetime.date) -> str:
    """One of PHRASINGS by a hash, so that every process and version of Python chooses alike."""
    digest = blake2b(day.isoformat().encode(), digest_size=8).digest()
    return PHRASINGS[int.from_bytes(digest) % len(PHRASINGS)]


def suffix(number: int) -> str:
    """The end of 1st, 2nd, 3rd, 4th, 11th; for 1 to 99."""
    if 10 < number < 20:
        return "th"
    return {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")


def cardinal(number: int) -> str:
    """0 to 99 in words: 84 is eighty-four."""
    if number < len(ONES):
        return ONES[number]
    tens, ones = divmod(number, 10)
    return f"{TENS[tens]}-{ONES[ones]}" if ones else TENS[tens]


def ordinal(number: int) -> str:
    """1 to 31 in words: 23 is twenty-third."""
    tens, hyphen, last = cardinal(number).rpartition("-")
    return tens + hyphen + ORDINALS.get(last, f"{last}th")


def year_in_words(year: int) -> str:
    """1900 to 2099 as they are read aloud: nineteen oh-five, two thousand and five, twenty ten."""
    century, rest = divmod(year, 100)
    if century == 20 and rest < 10:
        return f"two thousand and {cardinal(rest)}" if rest else "two thousand"
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {cardinal(rest) if rest > 9 else f'oh-{cardinal(rest)}'}"
