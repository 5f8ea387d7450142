"""The interval of a share: k of n counted."""

from workbench.models.perplexity import Interval


def share_interval(count: int, of: int) -> Interval:
    """The exact 95 % binomial interval (Clopper and Pearson 1934) of `count` successes in `of` trials; (0, 1) for no trials."""
    from scipy.stats import binomtest

    if not of:
        return 0.0, 1.0
    found = binomtest(count, of).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)
