"""How often corpora of different sizes are learned from: by size, by weight, and by temperature."""

from collections.abc import Sequence


def tempered_weights(weights: Sequence[float], sizes: Sequence[int], temperature: float) -> list[float]:
    """Gives small corpora more weight (Arivazhagan et al., 2019, §4.2; Devlin, 2018, for multilingual BERT).

    With n_i = weight times size of corpus i, its share of an epoch becomes n_i^(1/T) / sum over j of n_j^(1/T), where
    without a temperature it is n_i / sum over j of n_j. An epoch stays as long as it was.

    Args:
        weights: how often each sentence of a corpus counts in an epoch, by corpus.
        sizes: sentences of each corpus.
        temperature: T; 1 leaves the weights as they are, and with infinity all corpora would have equal shares.

    Returns:
        The weights instead. A corpus without a sentence keeps its own.
    """
    if temperature == 1:
        return list(weights)
    counts = [weight * size for weight, size in zip(weights, sizes, strict=True)]
    powers = [count ** (1 / temperature) for count in counts]
    scale = sum(counts) / max(sum(powers), 1e-300)
    # Rounded: a sentence that counts once is to count exactly once.
    return [
        round(scale * power / size, 9) if size else weight
        for power, size, weight in zip(powers, sizes, weights, strict=True)
    ]


__all__ = ["tempered_weights"]
