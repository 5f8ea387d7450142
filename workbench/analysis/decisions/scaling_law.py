"""The expected loss of quantization by a published scaling law, and the findings of studies of larger models.

The law was fitted on other models; beside it stands what was measured here. Nothing here is a promise.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.errors import ModelError
from workbench.json_value import read
from workbench.models.handle import ModelHandle

if TYPE_CHECKING:
    import pandas as pd

FITTED_BITS = (2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0)


@dataclass(frozen=True)
class Law:
    """A scaling law of the loss that quantization adds, in nats per token.

    The loss is `factor` · D^`by_tokens` / (N^`by_parameters` · bits^`by_bits`): N counts parameters, D tokens of training.
    `wb.measures.UNDERTRAINED` is that of arXiv 2411.17691, whose four constants are from a summary of the paper.

    Args:
        factor: The constant in front.
        by_tokens: The power of the tokens of training.
        by_parameters: The power of the parameters.
        by_bits: The power of the bits a weight.
        parameters: The range of parameters that it was fitted on.
        tokens: The range of training tokens.
        bits: The range of bits a weight.

    Example:
        >>> import workbench as wb
        >>> law = wb.measures.UNDERTRAINED
        >>> round(law.added_loss(parameters=1e9, tokens=1e11, bits=4), 3)
        0.046
        >>> law.outside(parameters=5e6, tokens=1e11)
        '5 million parameters'
    """

    factor: float
    by_tokens: float
    by_parameters: float
    by_bits: float
    parameters: tuple[float, float]
    tokens: tuple[float, float]
    bits: tuple[float, float]

    def added_loss(self, parameters: float, tokens: float, bits: float) -> float:
        """Nats per token; ModelError unless all three are positive."""
        if min(parameters, tokens, bits) <= 0:
            raise ModelError(f"{parameters:g} parameters, {tokens:g} tokens and {bits:g} bits; give numbers above 0.")
        return self.factor * tokens**self.by_tokens / (parameters**self.by_parameters * bits**self.by_bits)

    def outside(self, parameters: float, tokens: float) -> str:
        """What of a model lies outside of what the law was fitted on, as words; empty where nothing does."""
        what = (("parameters", parameters, self.parameters), ("training tokens", tokens, self.tokens))
        return " and ".join(
            f"{format_large_number(value)} {name}" for name, value, (low, high) in what if not low <= value <= high
        )


def format_large_number(number: float) -> str:
    """A large number in words: `4.72 million`."""
    size, word = (1e9, "billion") if number >= 1e9 else (1e6, "million")
    return f"{number / size:.3g} {word}"


@dataclass(frozen=True)
class Study:
    """What a paper found, in sentences of our own; `checked` says how far we checked it."""

    title: str
    arxiv: str
    finding: str
    checked: str


# the constants are those of round-to-nearest-like GPTQ on Pythia checkpoints
UNDERTRAINED = Law(0.017, 0.5251, 0.2261, 5.4967, (160e6, 12e9), (1e9, 206e9), (2, 4))

STUDIES = (
    Study(
        "Low-bit quantization favors undertrained LLMs",
        "2411.17691",
        "More than 1500 quantized checkpoints: larger models lose less, and models trained on more tokens lose more. "
        "The added loss follows a power law of tokens, parameters and bits; the curve here is that law.",
        "Findings from its abstract; the law's four constants from a summary, not checked against the paper's own table.",
    ),
    Study(
        "Scaling laws for precision",
        "2411.04330",
        "Over 465 training runs, up to 1.7B parameters and 26B tokens: the loss of post-training quantization grows with the "
        "number of training tokens, until more training makes the quantized model worse.",
        "From its abstract and a summary of it.",
    ),
    Study(
        "How good are low-bit quantized LLaMA3 models?",
        "2404.14047",
        "Ten methods from 1 to 8 bits: 4 bits cost little, 3 bits clearly more and depend on the method, 2 bits and fewer mostly "
        "collapse. Fine-tuning with low-rank adapters did not recover the loss below 4 bits; the 70B model is "
        "more robust than the 8B.",
        "From its abstract and summaries of it.",
    ),
    Study(
        "An empirical study of Qwen3 quantization",
        "2505.02214",
        "Five methods (round to nearest, GPTQ, AWQ, SmoothQuant, BiLLM) from 1 to 8 bits: almost no loss at 8 bits, "
        "some at 4, a large loss at 3 and fewer; larger models are more robust.",
        "From its abstract and summaries of it.",
    ),
)


def count_parameters(model: ModelHandle) -> int:
    """Count the weights of a model's linear layers.

    Args:
        model: A model from `wb.open_model`.

    Returns:
        How many there are.

    Example:
        >>> import workbench as wb
        >>> wb.measures.count_parameters(wb.open_model("builtin"))
        4718592
    """
    return int(model.layers()["parameters"].sum())


def read_training_tokens(model: ModelHandle) -> int | None:
    """Read how many tokens a model was trained on, where its folder says so in training.json, as the built-in model's does.

    Args:
        model: A model from `wb.open_model`.

    Returns:
        The tokens, or None where the folder does not say.

    Raises:
        ModelError: For a training.json that cannot be read.

    Example:
        >>> import workbench as wb
        >>> wb.measures.training_tokens(wb.open_model("builtin"))
        8966912
    """
    path = model.folder / "training.json"
    if not path.is_file():
        return None
    stages = read(path, error=ModelError).find("stages")
    return None if stages is None else sum(stage.get("tokens_seen").as_whole() for stage in stages.elements()) or None


def tabulate_expected_losses(count: float, tokens: float, law: Law = UNDERTRAINED) -> "pd.DataFrame":
    """Tabulate the loss that a scaling law expects quantization to add to a model of this size and training.

    Args:
        count: Parameters of the model.
        tokens: Tokens that it was trained on.
        law: The law, that of arXiv 2411.17691 when absent.

    Returns:
        One row for each of 2, 2.5, 3, 3.5, 4, 5, 6 and 8 bits a weight: bits, added_loss (nats per token), ratio (perplexity over
        the original's).

    Raises:
        ModelError: For numbers that are not above zero.

    Example:
        >>> import workbench as wb
        >>> table = wb.measures.expected_losses(count=1e9, tokens=1e11)
        >>> table["bits"].tolist()
        [2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0]
        >>> round(table["added_loss"].tolist()[0], 2)
        2.07
    """
    import pandas as pd

    losses = [law.added_loss(count, tokens, bits) for bits in FITTED_BITS]
    return pd.DataFrame({"bits": FITTED_BITS, "added_loss": losses, "ratio": [math.exp(loss) for loss in losses]})


def tabulate_measured_losses(stops: "pd.DataFrame", pinned: "pd.DataFrame | None" = None) -> "pd.DataFrame":
    """Express measured perplexities in the terms of a scaling law: the loss added to the original's, in nats per token.

    Args:
        stops: A table with recipe, bits_per_weight and perplexity, the original first (`wb.measures.squeeze_table` makes one).
        pinned: Models measured on the same text, as `Pins.model_table` gives them; they follow the stops.

    Returns:
        One row for each but the original: recipe, bits_per_weight, added_loss, ratio (perplexity over the original's).

    Example:
        >>> import pandas as pd
        >>> import workbench as wb
        >>> stops = pd.DataFrame({"recipe": ["none", "rtn"], "bits_per_weight": [16.0, 2.0], "perplexity": [8.0, 10.0]})
        >>> wb.measures.measured_losses(stops)["ratio"].tolist()
        [1.25]
    """
    import numpy as np
    import pandas as pd

    original = stops["perplexity"].iloc[0] if len(stops) else float("nan")
    measured = stops.iloc[1:]
    if pinned is not None and len(stops):
        measured = pd.concat([measured, pinned.rename(columns={"pin": "recipe"})])
    ratio = measured["perplexity"].astype(float) / original
    return measured[["recipe", "bits_per_weight"]].assign(added_loss=np.log(ratio), ratio=ratio).reset_index(drop=True)
