"""Pearson's chi-square test, for what is drawn at random."""

import torch


def p_value(observed, expected=None):
    """How probable counts as far from the expected ones are, or farther; without expected ones, all are equal."""
    counts = torch.tensor(observed, dtype=torch.float64)
    wanted = counts.mean().expand_as(counts) if expected is None else torch.tensor(expected, dtype=torch.float64)
    statistic = ((counts - wanted) ** 2 / wanted).sum()
    return float(torch.special.gammaincc(torch.tensor((len(counts) - 1) / 2, dtype=torch.float64), statistic / 2))
