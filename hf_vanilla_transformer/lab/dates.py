"""A small translation task made in the program: dates as people write them, into ISO 8601."""

import datetime
import random

# fmt: off
_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)
_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)
_TENS = ("zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_ORDINALS = (
    "zeroth", "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth",
    "eleventh", "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth",
    "nineteenth", "twentieth",
)
# fmt: on
FIRST_YEAR, LAST_YEAR = 1900, 2099


def number_in_words(number: int) -> str:
    """Writes a number from 0 to 99 as English words: 42 is "forty-two"."""
    if number < 20:
        return _ONES[number]
    tens, ones = divmod(number, 10)
    return _TENS[tens] + (f"-{_ONES[ones]}" if ones else "")


def ordinal_in_words(number: int) -> str:
    """Writes an ordinal from 1 to 39 as English words: 31 is "thirty-first"."""
    if number <= 20:
        return _ORDINALS[number]
    tens, ones = divmod(number, 10)
    return f"{_TENS[tens]}-{_ORDINALS[ones]}" if ones else f"{_TENS[tens][:-1]}ieth"


def year_in_words(year: int) -> str:
    """Writes a year from 1900 to 2099 as it is said: 1905 is "nineteen oh five", 2007 "two thousand seven"."""
    century, rest = divmod(year, 100)
    if century == 20 and rest < 10:
        return "two thousand" + (f" {_ONES[rest]}" if rest else "")
    if rest == 0:
        return f"{number_in_words(century)} hundred"
    return f"{number_in_words(century)} {f'oh {_ONES[rest]}' if rest < 10 else number_in_words(rest)}"


def day_with_suffix(day: int) -> str:
    """Writes a day as 1st, 2nd, 3rd, 4th, 11th, 21st."""
    suffix = "th" if 11 <= day <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(day % 10, "th")
    return f"{day}{suffix}"


def spellings(date: datetime.date) -> list[str]:
    """Lists how people write a date between 1900 and 2099.

    Args:
        date: any date of those years.

    Returns:
        Eight different spellings, each of which tells day, month and year without doubt.
    """
    month, day, year = _MONTHS[date.month - 1], date.day, date.year
    return [
        f"{month} {day}, {year}",
        f"{day} {month} {year}",
        f"{month[:3]} {day_with_suffix(day)}, {year}",
        f"the {day_with_suffix(day)} of {month}, {year}",
        f"{date.strftime('%A')}, {day} {month} {year}",
        f"{month} {ordinal_in_words(day)}, {year_in_words(year)}",
        f"the {ordinal_in_words(day)} of {month}, {year_in_words(year)}",
        f"{month} the {ordinal_in_words(day)} in the year {year_in_words(year)}",
    ]


def date_pairs(held_out: int, train: int, seed: int = 0) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Draws dates at random, without repetition, and spells each in one way.

    Args:
        held_out: pairs whose dates the training pairs do not contain, in any spelling.
        train: pairs to learn from.
        seed: of the random choice.

    Returns:
        Training and held-out pairs, `{"source": "the third of May, nineteen ninety-nine", "target": "1999-05-03"}`.

    Raises:
        ValueError: more pairs are asked for than there are dates.
    """
    first = datetime.date(FIRST_YEAR, 1, 1).toordinal()
    last = datetime.date(LAST_YEAR, 12, 31).toordinal()
    if held_out + train > last - first + 1:
        raise ValueError(
            f"held_out={held_out} and train={train} pairs were asked for, but {FIRST_YEAR} to {LAST_YEAR} have only "
            f"{last - first + 1} days"
        )
    generator = random.Random(seed)
    pairs = []
    for ordinal in generator.sample(range(first, last + 1), held_out + train):
        date = datetime.date.fromordinal(ordinal)
        pairs.append({"source": generator.choice(spellings(date)), "target": date.isoformat()})
    return pairs[held_out:], pairs[:held_out]
