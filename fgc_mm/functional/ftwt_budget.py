"""MACs for FTWT's targets, before any training."""

from collections.abc import Callable, Sequence

from torch import Tensor

from fgc_mm.errors import FGCError
from fgc_mm.functional.channel_groups import spread_groups
from fgc_mm.functional.macs import MACsTable, macs_per_image

Target = Callable[[Tensor, float], Tensor]


def check_budget(budget: float) -> None:
    """Raise FGCError unless it is a fraction of the dense MACs."""
    if not 0 < budget < 1:
        raise FGCError(
            f'a budget of {budget} is not a fraction of the dense MACs; give '
            'a number between 0 and 1, such as 0.45.'
        )


def expected_cost(
    scores: Sequence[Tensor], table: MACsTable, target: Target, ratio: float
) -> float:
    """Mean fraction of the dense MACs if every gate predicts its target.

    Args:
        scores: For every site (N, G), one score per decision: the sum over
            its channels of
            :func:`fgc_mm.functional.mask_targets.channel_scores` in the
            dense network.
        table: The gated network's layers, gates included.
        target: ``mass_mask`` or ``uniform_mask``.
        ratio: r, the target's argument.
    """
    sizes = table.group_sizes or [None] * len(scores)
    masks = [
        spread_groups(target(score, ratio), groups)
        for score, groups in zip(scores, sizes)
    ]
    return macs_per_image(table, masks).mean().item() / table.base()


def ratio_for_budget(
    scores: Sequence[Tensor],
    table: MACsTable,
    target: Target,
    budget: float,
    ends: tuple[float, float],
    steps: int = 20,
) -> float:
    """The ratio whose expected cost is nearest to a budget, by bisection.

    The first three arguments are those of :func:`expected_cost`.

    Args:
        budget: Fraction of the dense MACs, in (0, 1).
        ends: The ratios with the lowest and the highest cost.
        steps: Number of bisections.

    Raises:
        FGCError: A budget outside (0, 1), or out of reach.
    """
    check_budget(budget)

    def cost(ratio: float) -> float:
        return expected_cost(scores, table, target, ratio)

    least, most = map(cost, ends)
    if not least <= budget <= most:
        raise FGCError(
            f'a budget of {budget} is out of reach: with this target the '
            f'lowest possible cost is {least:.4f} (with gates and layers '
            f'without a site) and the highest {most:.4f}.'
        )
    low, high = ends
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(middle) <= budget else (low, middle)
    return min((low, high), key=lambda ratio: abs(cost(ratio) - budget))
