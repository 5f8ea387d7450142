"""Orders of coding and kinds of error feedback; importing the package registers all of them."""

from workbench.quantizers.assignment.block_feedback import BlockFeedback
from workbench.quantizers.assignment.column_feedback import ColumnFeedback
from workbench.quantizers.assignment.nearest import Nearest
from workbench.quantizers.assignment.released_feedback import ReleasedFeedback

__all__ = ["BlockFeedback", "ColumnFeedback", "Nearest", "ReleasedFeedback"]
