"""Ways to divide a matrix among coders; importing the package registers all of them."""

from workbench.quantizers.splits.magnitude_groups import Groups
from workbench.quantizers.splits.released_groups import ReleasedGroups
from workbench.quantizers.splits.salient_columns import SalientColumns
from workbench.quantizers.splits.top_elements import TopElements
from workbench.quantizers.splits.whole import Whole
from workbench.quantizers.splits.widest_groups import WidestGroups

__all__ = ["Groups", "ReleasedGroups", "SalientColumns", "TopElements", "Whole", "WidestGroups"]
