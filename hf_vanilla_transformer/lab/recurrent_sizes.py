"""Models of equal size: the width at which a recurrent model has as many parameters as another."""

import copy

from .planning import count_parameters
from .recurrent import RecurrentConfig  # which registers the model that is counted


def with_parameters(config: RecurrentConfig, parameters: int, tolerance: float = 0.02) -> RecurrentConfig:
    """Chooses the width of a recurrent model by the number of its parameters.

    Args:
        config: everything else about it.
        parameters: how many numbers it is to learn, such as `count_parameters` of another model.
        tolerance: the largest relative difference that is allowed.

    Returns:
        A copy with another, even `d_model`: the one that comes nearest.

    Raises:
        ValueError: no width comes as near as that.
    """

    def sized(width: int) -> RecurrentConfig:
        changed = copy.deepcopy(config)
        changed.d_model = width
        return changed

    low, high = 2, 4
    while count_parameters(sized(high)) < parameters:
        low, high = high, 2 * high
    while high - low > 2:  # both are even, and the number grows with the width
        middle = (low + high) // 4 * 2
        low, high = (low, middle) if count_parameters(sized(middle)) >= parameters else (middle, high)
    best = min(sized(low), sized(high), key=lambda each: abs(count_parameters(each) - parameters))
    found = count_parameters(best)
    if abs(found - parameters) > tolerance * parameters:
        raise ValueError(
            f"no width has {parameters:,} parameters: the nearest is `d_model`={best.d_model} with {found:,}, and "
            f"`tolerance`={tolerance} is less than that"
        )
    return best
