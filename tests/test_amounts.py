"""How much of a text is noise: shares, rounded, with something left of every text."""

from fractions import Fraction

import numpy as np
import pytest

from hf_vanilla_transformer.data.noise.amounts import noise_counts, sorted_choice, without_end


@pytest.mark.parametrize("least_kept", [0, 1])
def test_counts_are_the_share_rounded_but_at_least_one_and_leave_what_is_to_be_kept(least_kept):
    counts = noise_counts(np.arange(200), 0.25, least_kept)
    for length, noise in enumerate(counts.tolist()):
        wanted = max(round(length * Fraction(1, 4)), 1)  # by exact arithmetic; 0.25 is exact in binary too
        assert noise == min(wanted, max(length - least_kept, 0))


@pytest.mark.parametrize("density", [0, 1, -0.1, float("nan")])
def test_shares_out_of_range_are_refused(density):
    with pytest.raises(ValueError, match="`noise_density`=.* is not between 0 and 1"):
        noise_counts(9, density)


def test_a_length_below_zero_and_a_text_with_its_end_in_it_are_refused():
    with pytest.raises(ValueError, match="`num_tokens` has -1 in it"):
        noise_counts(np.array([3, -1]), 0.5)
    with pytest.raises(ValueError, match=r"`tokens` has </s> \(id 2\) at position 1"):
        without_end(np.array([7, 2, 8]), 2)


def test_a_choice_is_in_order_and_has_no_place_twice():
    random = np.random.default_rng(0)
    for size in range(8):
        chosen = sorted_choice(random, 7, min(size, 7)).tolist()
        assert chosen == sorted(set(chosen))
        assert set(chosen) <= set(range(7))
