"""How small can the key-value cache be? Schemes measured on a text, and a text generated with one of them."""

from collections.abc import Generator
from typing import Any

import panel as pn

from workbench.analysis.decisions.study_time import count_weights, estimate_reading_seconds
from workbench.analysis.predictions.generation import Writing, write_together
from workbench.analysis.predictions.kv_cache import (
    TOKENS_PER_PASS,
    CacheResult,
    make_cached_model,
    measure_cache,
    tabulate_caches,
)
from workbench.errors import WorkbenchError
from workbench.jobs import Counted, Job
from workbench.models.text import text
from workbench.quantizers.kv import parse
from workbench.views import theme as themes
from workbench.views.predictions import generation as texts
from workbench.views.predictions import kv_cache as views
from workbench.widgets.base.component import Component, FigureFrame, choose_theme
from workbench.widgets.base.controls import build_action_button, build_folded_card, build_token_input
from workbench.widgets.base.job_panel import JobPanel
from workbench.widgets.elements.text_pages import TextPages
from workbench.widgets.predictions.attention_raster import AttentionRaster
from workbench.widgets.predictions.cache_raster import CacheRaster

SCHEMES = (
    "none",
    "kivi:bits=4",
    "kivi:bits=2",
    "per-token:bits=2",
    "per-channel:bits=2",
    "zipcache:bits=2",
    "vidkv",
    "rotated:bits=4",
    "rotated:bits=2",
    "rotated:bits=1",
)
CACHE_TOKENS = 1024
CACHE_QUESTION = "Does it still write the same with this cache?"


class KVCacheView(Component):
    """Choose schemes for the key-value cache, measure them, and let the model write through one.

    `results` holds what was measured, by scheme, tokens and block.

    Example:
        >>> import workbench as wb
        >>> view = wb.KVCacheView(wb.open_model("builtin"), threaded=False)
        >>> view.schemes.value, view.tokens.value = ["kivi:bits=4"], 128
        >>> view.measure()  # as its button does
        >>> list(view.results)
        [('kivi:bits=4', 128, 64)]
    """

    watches = ("choice",)

    def build(self) -> pn.viewable.Viewable:
        """Settings and buttons above, the figure, then the texts."""
        self.results: dict[tuple[str, int, int], CacheResult] = {}
        self.schemes = pn.widgets.CheckBoxGroup(
            label="Schemes",
            options=list(SCHEMES),
            value=["none", "kivi:bits=2", "zipcache:bits=2", "vidkv", "rotated:bits=2"],
            inline=True,
            stylesheets=[":host .bk-input-group{flex-wrap:wrap}"],
        )
        self.other = pn.widgets.TextInput(
            label="Another scheme", placeholder="kivi:bits=3,group=32", width=220, description="Press Enter to add it to the list"
        )
        self.tokens = build_token_input(CACHE_TOKENS)
        self.block = pn.widgets.IntInput(
            label="Block",
            value=TOKENS_PER_PASS,
            start=8,
            end=512,
            step=8,
            width=110,
            description="Number of tokens packed together",
        )
        self.go = build_action_button("Measure", "Evaluate each cache on the evaluation text", 120)
        self.which = pn.widgets.Select(label="Write with", options=[], width=220, description="The cache to generate text with")
        self.write_on = build_action_button("Write", "Continue the prompt with the uncompressed cache and with this one", 120)
        self.jobs = JobPanel(self.notices, threaded=self.threaded)
        self.jobs.param.watch(lambda event: self._busy(event.new), "running")
        self.frame, self.pages = FigureFrame(), TextPages()
        self.attention, self.cache = self.part(AttentionRaster), self.part(CacheRaster)
        self.go.on_click(lambda _: self.notices.guard(self.measure))
        self.write_on.on_click(lambda _: self.notices.guard(self.write))
        self.other.param.watch(lambda _: self.notices.guard(self.add), "value")
        return pn.Column(
            pn.pane.HTML("<p style='margin:2px 0'>Schemes: how keys and values are stored; a name and its settings.</p>"),
            self.schemes,
            pn.FlexBox(self.other, self.tokens, self.block, self.go),
            self.jobs,
            self.frame,
            pn.FlexBox(self.which, self.write_on),
            self.pages,
            build_folded_card("Attention of a head", self.attention.view),
            build_folded_card("The cache of a block", self.cache.view),
            sizing_mode="stretch_width",
        )

    def refresh(self) -> None:
        """The figure of what was measured with these settings."""
        shown = self.shown()
        self._offer([result.scheme.spelled() for result in shown])
        self.write_on.disabled = self.jobs.running or not shown
        if not shown:
            self.frame.say(views.SIZE_QUESTION, self._describe_cost())
            return
        self.frame.draw(
            views.draw_perplexity_by_bytes(tabulate_caches(shown), shown[0].divergence.perplexity_original, theme=choose_theme())
        )

    def begin_default(self) -> None:
        """Measure the schemes that are selected at first."""
        self.measure()

    def _describe_cost(self) -> str:
        """What measuring takes, for who has to decide."""
        count, tokens = len(self.schemes.value), int(self.tokens.value or CACHE_TOKENS)
        seconds = estimate_reading_seconds(count_weights(self.session.model), count * tokens)
        return (
            f"{themes.format_count(count, 'cache')} on {tokens:,} tokens of the evaluation text: "
            f"{themes.format_estimate(seconds)} on this machine. Press Measure."
        )

    def shown(self) -> list[CacheResult]:
        """Results of this number of tokens and this block, in the order of the schemes."""
        settings = (int(self.tokens.value or CACHE_TOKENS), int(self.block.value or TOKENS_PER_PASS))
        return [self.results[scheme, *settings] for scheme in self.schemes.options if (scheme, *settings) in self.results]

    def add(self) -> None:
        """Take the typed scheme up among the others."""
        if not self.other.value:
            return
        spelled = parse(self.other.value).spelled()
        if spelled not in self.schemes.options:
            self.schemes.options = [*self.schemes.options, spelled]
        self.schemes.value = list(dict.fromkeys([*self.schemes.value, spelled]))
        self.other.value = ""

    def measure(self) -> None:
        """Measure the chosen schemes that were not measured with these settings."""
        tokens, block = int(self.tokens.value or CACHE_TOKENS), int(self.block.value or TOKENS_PER_PASS)
        missing = [scheme for scheme in self.schemes.value if (scheme, tokens, block) not in self.results]
        if not self.schemes.value:
            raise WorkbenchError("no scheme is selected; select one or more above.")

        def steps() -> Generator[Counted, None, None]:
            for done, scheme in enumerate(missing):
                yield Counted(done, len(missing))
                self.results[scheme, tokens, block] = measure_cache(
                    self.session.model, scheme, text("evaluation"), tokens=tokens, block=block
                )

        self.jobs.run(steps, "measuring caches", ended=lambda _: self.refresh())

    def write(self) -> None:
        """Both continue the session's prompt, token by token."""
        scheme, block, prompt = self.which.value, int(self.block.value or TOKENS_PER_PASS), self.session.choice.prompt
        model = self.session.model

        def steps() -> Generator[Writing, None, None]:
            yield from write_together(model.language_model(), make_cached_model(model, scheme, block=block), prompt)

        self.jobs.run(steps, "writing", on_step=lambda job: self._wrote(job, prompt), ended=lambda job: self._wrote(job, prompt))

    def _wrote(self, job: Job[Any], prompt: str) -> None:
        if isinstance(job.latest, Writing):
            shown = texts.build_text_comparison(prompt, job.latest, theme=choose_theme())
            self.pages.draw(texts.Comparison(CACHE_QUESTION, shown.answer, shown.original, shown.quantized, shown.table))

    def _offer(self, schemes: list[str]) -> None:
        """Caches to write through; the chosen one stays chosen, else it is the first that is not the whole cache."""
        value = self.which.value
        if value not in schemes:
            value = next((scheme for scheme in [*schemes, None] if scheme != "none"), None)
        self.which.param.update(options=schemes, value=value)

    def _busy(self, running: bool) -> None:
        self.go.disabled = running
        self.write_on.disabled = running or not self.which.options
