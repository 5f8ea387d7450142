"""A component with several sections, of which one is shown; a section is built when it is first selected."""

from typing import Any, ClassVar

import panel as pn

from workbench.widgets.base.component import Component, render_chosen_css


class Sections(Component):
    """Buttons for the sections named in `kinds`, above the one chosen; only that one computes anything."""

    watches: ClassVar[tuple[str, ...]] = ()  # the section in front looks after itself
    kinds: ClassVar[dict[str, type[Component]]] = {}

    def build(self) -> pn.viewable.Viewable:
        """The choice of sections, the place of the one chosen, and what all of them share."""
        self.built: dict[str, Component] = {}
        self.section = pn.widgets.RadioButtonGroup(
            label="Section",
            options=list(self.kinds),
            value=next(iter(self.kinds)),
            margin=(0, 10),
            stylesheets=[render_chosen_css()],
        )
        self.section.param.watch(lambda _: self.look(self.visible), "value")
        self.shown = pn.Column(sizing_mode="stretch_width")
        return pn.Column(self.section, self.shown, *self.below(), sizing_mode="stretch_width")

    def below(self) -> list[pn.viewable.Viewable]:
        """What stands below every section; nothing by default."""
        return []

    def refresh(self) -> None:
        """The chosen section."""
        self.look(self.visible)

    def __getitem__(self, name: str) -> Any:
        """One section, built now where it has never been chosen."""
        if name not in self.built:
            self.built[name] = self.part(self.kinds[name])
            self.built[name].look(self.visible and name == self.section.value)
        return self.built[name]

    def look(self, visible: bool) -> None:
        """Only the chosen section is drawn, and only while this part is in front."""
        super().look(visible)
        if visible and list(self.shown) != [self[self.section.value].view]:
            self.shown[:] = [self[self.section.value].view]
        for name, part in self.built.items():
            part.look(visible and name == self.section.value)
