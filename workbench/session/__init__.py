"""A visitor's state, independent of any screen: the choice with its selection, the shared model, the session."""

from workbench.session.choice import Choice, Selection
from workbench.session.differences import describe_differences
from workbench.session.history import History, Kind
from workbench.session.preview import Preview
from workbench.session.session import Session
from workbench.session.shared import CALIBRATION_TOKENS, Heard, SharedModel

__all__ = [
    "CALIBRATION_TOKENS",
    "Choice",
    "Heard",
    "History",
    "Kind",
    "Preview",
    "Selection",
    "Session",
    "SharedModel",
    "describe_differences",
]
