"""What a notebook shows of a result that nobody prints: one line."""

import pytest

import workbench as wb
from workbench.analysis.predictions.kv_cache import measure_cache
from workbench.models import ModelHandle

LAYER = "model.layers.0.mlp.down_proj"


@pytest.fixture(scope="module")
def results(builtin: ModelHandle) -> dict[str, object]:
    text = wb.text("evaluation")
    found = wb.what_if(builtin, LAYER, wb.recipe("rtn", bits=2), text, tokens=60)
    return {
        "layer": found.layer,
        "ledger": found.layer.ledger,
        "packed": found.layer.packed,
        "what-if": found,
        "divergence": found.divergence,
        "text": text,
        "perplexity": builtin.perplexity(text, tokens=60),
        "cache": measure_cache(builtin, "kivi", text, tokens=60),
        "model": builtin,
    }


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("layer", f"<QuantizedLayer '{LAYER}': 256 × 768 at 2.14 bits per weight (2.00 nominal), error 0."),
        ("ledger", "<BitLedger: 3 stored items for 196,608 weights, 2.14 bits per weight (2.00 nominal)>"),
        ("packed", "<Packed 256 × 768: uniform, 3 tensors>"),
        ("what-if", f"<WhatIf '{LAYER}' at 2.14 bits per weight: <Divergence on 60 tokens of 'evaluation': KL "),
        ("divergence", "<Divergence on 60 tokens of 'evaluation': KL "),
        ("text", "<Text 'evaluation': 30 documents, "),
        ("perplexity", "<PerplexityResult on 60 tokens of 'evaluation': "),
        ("cache", "<CacheResult 'kivi:bits=4': "),
        ("model", "<ModelHandle 'builtin': "),
    ],
)
def test_it_is_one_line(results: dict[str, object], name: str, said: str) -> None:
    shown = repr(results[name])
    assert shown.startswith(said)
    assert len(shown) <= 200
    assert "\n" not in shown
