"""The exceptions for users' mistakes, as one tree; bugs stay ordinary Python exceptions.

    WorkbenchError
    ├── RecipeError      an unknown part or preset, a field out of range, parts that do not fit together
    ├── ShapeError       a weight, moment or group size whose numbers do not match
    ├── ModelError       a model folder, checkpoint or layer name that cannot be read
    ├── KernelError      a backend that was asked for by name and cannot run this format here
    ├── ArtifactError    a saved result that is missing, damaged or of another version
    ├── OutputError      a file or folder that cannot be written
    ├── ClusterError     workers that cannot be started or reached, or a cluster that went away
    └── JobCancelled     a job that its owner stopped

A message says what was given, what is allowed and what to do, with the numbers.

Example:
    >>> import workbench as wb
    >>> try:
    ...     wb.recipe("rnt")
    ... except wb.errors.RecipeError as error:
    ...     print(str(error).partition(" Known")[0])
    unknown preset 'rnt'. Did you mean 'rtn'?
"""


class WorkbenchWarning(UserWarning):
    """Base of all warnings of this package; a command shows them, and none of the libraries below it."""


class WorkbenchError(Exception):
    """Base of all errors that are shown to a user as one sentence, never as a traceback."""


class RecipeError(WorkbenchError):
    """A recipe names something unknown, holds a value out of range, or combines parts that do not fit."""


class ShapeError(WorkbenchError):
    """The shape or content of a tensor does not allow what was asked."""


class ModelError(WorkbenchError):
    """A model, its files or one of its layers cannot be read."""


class KernelError(WorkbenchError):
    """The backend that was asked for cannot run here."""


class ArtifactError(WorkbenchError):
    """A saved result is missing, damaged, or written by another version."""


class OutputError(WorkbenchError):
    """A file or folder cannot be written: its place, its name, or a full disk."""


class ClusterError(WorkbenchError):
    """Worker processes cannot be started, reached or used, or their cluster went away; finished tasks are kept."""


class JobCancelled(WorkbenchError):
    """A running job was stopped by its owner; what it had finished is kept."""
