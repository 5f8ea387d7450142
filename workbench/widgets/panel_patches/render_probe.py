"""A probe for whether a notebook page has been rendered: Panel opens its comm before that, and earlier messages are lost."""

from typing import ClassVar

import param
from panel.reactive import ReactiveHTML

NEEDED_WITH = {"panel": "1.9"}  # the newest releases that were seen to need this


class Drawn(ReactiveHTML):
    """A mark on the page that shows nothing; `there` once the page has been drawn."""

    there = param.Boolean(default=False, doc="whether the page has been rendered")

    _template: ClassVar[str] = "<span id='mark' hidden></span>"
    _scripts: ClassVar[dict[str, str]] = {"render": "data.there = true"}

    def __init__(self) -> None:
        super().__init__(width=0, height=0, margin=0)
