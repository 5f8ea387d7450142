"""Importance of layers, without quantizing them: three published scores, higher for layers that should get more bits."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from workbench.errors import ModelError
from workbench.models.boundaries import Boundaries
from workbench.models.handle import ModelHandle
from workbench.models.layers import find_block_name
from workbench.models.perplexity import iterate_spans
from workbench.models.text import Text
from workbench.seeds import check_seed

if TYPE_CHECKING:
    import pandas as pd

CLUSTERS = 100
SCORING_TOKENS = 2048


def layer_scores(
    model: ModelHandle, text: Text, *, tokens: int = SCORING_TOKENS, clusters: int = CLUSTERS, seed: int = 0
) -> "pd.DataFrame":
    """Score every layer by how much its block matters, without quantizing anything; for the allocation method "ranked".

    All layers of a block have the block's score, so scores rank and do not add up. LIM and ZD are from arXiv 2406.17415, the
    entropy from LUQ, arXiv 2509.23729. What the papers leave open: cosines are averaged, not vectors; ZD is one-sided and of
    all weights of a block together.

    Args:
        model: A model from `wb.open_model`.
        text: A text from `wb.text`.
        tokens: At most so many tokens of it.
        clusters: Centres of the k-means.
        seed: Draws the first centres.

    Returns:
        One row a layer: name, block, lim (−cos(block input, block output), mean over tokens), zd (−share of the block's weights
        more than one standard deviation above its mean) and entropy (bits, Σ −p log₂ p of the clusters of the block's normed
        outputs).

    Raises:
        ModelError: For fewer clusters than 1, a seed out of range, and a model that writes no text.

    Example:
        >>> import workbench as wb
        >>> scores = wb.layer_scores(wb.open_model("builtin"), wb.text("evaluation"), tokens=128, clusters=8)
        >>> list(scores.columns), len(scores)
        (['name', 'block', 'lim', 'zd', 'entropy'], 42)
        >>> scores["lim"].idxmax()  # the block that changes its input most
        0
    """
    import pandas as pd

    check_seed(seed, ModelError)
    if clusters < 1:
        raise ModelError(f"{clusters} clusters; use 1 or more.")
    boundaries = Boundaries(model, (span.window for span in iterate_spans(model.language_model(), text, tokens)))
    rows = {}
    for index, block in enumerate(boundaries.blocks):
        before, after = boundaries.states(index), boundaries.states(index + 1)
        cosine = torch.nn.functional.cosine_similarity(before.double(), after.double(), dim=-1).mean()
        weights = torch.cat(
            [model.weight(name).flatten().double() for name in model.layer_names if find_block_name(name) == block]
        )
        share = ((weights - weights.mean()) > weights.std()).double().mean()
        rows[block] = {
            "block": index,
            "lim": -float(cosine),
            "zd": -float(share),
            "entropy": compute_cluster_entropy(after, clusters, seed),
        }
    return pd.DataFrame([{"name": name, **rows[find_block_name(name)]} for name in model.layer_names])


def compute_cluster_entropy(states: Tensor, clusters: int, seed: int) -> float:
    """Entropy in bits of k-means cluster shares of the vectors `states [tokens, width]`, each of length 1."""
    from scipy.cluster.vq import kmeans, vq

    vectors = torch.nn.functional.normalize(states.double(), dim=-1).numpy()
    first = np.random.default_rng(seed).permutation(len(vectors))[:clusters]
    centres, _ = kmeans(vectors, vectors[first])
    shares = np.bincount(vq(vectors, centres)[0]) / len(vectors)
    used = shares[shares > 0]
    return float(-(used * np.log2(used)).sum())
