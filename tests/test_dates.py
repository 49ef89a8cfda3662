"""The quickstart's task: every spelling says which date it is."""

import datetime
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_vanilla_transformer.lab.dates import date_pairs, day_with_suffix, ordinal_in_words, spellings, year_in_words

DATES = st.dates(datetime.date(1900, 1, 1), datetime.date(2099, 12, 31))


def test_no_two_dates_share_a_spelling_and_no_date_spells_itself_twice_alike():
    owner = {}
    day = datetime.date(1900, 1, 1)
    while day.year < 2100:
        forms = spellings(day)
        assert len(set(forms)) == len(forms)
        for form in forms:
            assert owner.setdefault(form, day) == day, form
        day += datetime.timedelta(days=1)


@given(DATES)
def test_spellings_in_digits_are_read_back_by_the_standard_library(date):
    for form, pattern in zip(
        spellings(date), ["%B %d, %Y", "%d %B %Y", "%b %d, %Y", "the %d of %B, %Y", "%A, %d %B %Y"]
    ):
        without_suffix = re.sub(r"(\d)(st|nd|rd|th)", r"\1", form)
        assert datetime.datetime.strptime(without_suffix, pattern).date() == date


def test_english():
    assert [year_in_words(year) for year in (1900, 1905, 1999, 2000, 2007, 2042)] == [
        "nineteen hundred",
        "nineteen oh five",
        "nineteen ninety-nine",
        "two thousand",
        "two thousand seven",
        "twenty forty-two",
    ]
    assert [ordinal_in_words(day) for day in (1, 12, 20, 21, 30, 31)] == [
        "first",
        "twelfth",
        "twentieth",
        "twenty-first",
        "thirtieth",
        "thirty-first",
    ]
    assert [day_with_suffix(day) for day in (1, 2, 3, 4, 11, 12, 13, 21, 22, 23, 31)] == (
        ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "22nd", "23rd", "31st"]
    )


def test_held_out_dates_are_not_trained_on_and_the_seed_decides():
    train, held_out = date_pairs(held_out=300, train=3000, seed=1)
    assert (len(train), len(held_out)) == (3000, 300)
    assert not {pair["target"] for pair in train} & {pair["target"] for pair in held_out}
    assert (train, held_out) == date_pairs(held_out=300, train=3000, seed=1)
    assert train != date_pairs(held_out=300, train=3000, seed=2)[0]
    for pair in train:
        assert pair["source"] in spellings(datetime.date.fromisoformat(pair["target"]))


def test_more_dates_than_there_are_are_refused_with_the_numbers():
    with pytest.raises(ValueError, match="train=80000.*73049 days"):
        date_pairs(held_out=0, train=80000)
