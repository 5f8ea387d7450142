"""What the views of a layer show of the two runs that are compared: the one on show, and the one beside it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from workbench.models.language_model import LanguageModel
from workbench.quantized import QuantizedLayer
from workbench.session.runs import ORIGINAL

if TYPE_CHECKING:
    from workbench.session.session import Session


class ComparedRuns:
    """Layers and models of the two runs of a session; `bench` is the recipe on the bench when the run on show was chosen."""

    def __init__(self, session: "Session") -> None:
        self.session, self.bench = session, session.recipe

    @property
    def follows_run(self) -> bool:
        """Whether views of a layer show the run: it is not the original, and the bench has not changed since it was chosen."""
        return self.session.runs.label != ORIGINAL and self.bench == self.session.recipe

    @property
    def has_reference(self) -> bool:
        """Whether the run on show is compared with another one than the original."""
        return self.session.runs.reference.label != ORIGINAL

    @property
    def labels(self) -> tuple[str, str]:
        """What is compared with and what is shown, in words."""
        runs = self.session.runs
        shown = runs.label if self.follows_run else "the recipe on the bench"
        return runs.reference.label, shown

    def layers(self) -> Mapping[str, QuantizedLayer]:
        """The layers of the stop that is shown, else the last result of each layer."""
        run = self.session.runs.current
        of_stop = self.session.runs.layers(run) if run.stop is not None else {}
        return of_stop or self.session.latest()

    def reference_layers(self) -> Mapping[str, QuantizedLayer]:
        """The layers of the run that is compared with; none for the original."""
        return self.session.runs.layers(self.session.runs.reference)

    @property
    def shown(self) -> QuantizedLayer | None:
        """The selected layer in the run on show where the views follow it, else the bench's result."""
        run = self.session.runs.current
        layer = self.session.runs.layers(run).get(self.session.layer) if self.follows_run else None
        if layer is None or (run.stop is None and layer.recipe == self.session.recipe):
            return self.session.result
        return layer

    @property
    def reference(self) -> QuantizedLayer | None:
        """The selected layer in the run that is compared with; None for the original."""
        return self.reference_layers().get(self.session.layer)

    def models(self) -> tuple[LanguageModel, LanguageModel]:
        """The run that is compared with; and the stop on show, or every layer that is quantized as its latest result."""
        runs = self.session.runs
        is_stop = runs.current.stop is not None and bool(runs.layers(runs.current))
        return runs.model(runs.reference), runs.model(runs.current) if is_stop else self.session.packed_model()
