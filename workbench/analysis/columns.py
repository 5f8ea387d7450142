"""The glossary: every column that a table of this package shows, with its label, its meaning and how its numbers are written."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One column: `label` for a header, `meaning` for a tooltip, `format` a Python format for its numbers ("" for text)."""

    label: str
    meaning: str
    format: str = ""


COLUMNS: dict[str, Column] = {
    "name": Column("layer", "The layer's full name in the model."),
    "block": Column("block", "Which transformer block the layer belongs to, counted from 0.", "d"),
    "matrix": Column("matrix", "Which matrix of its block the layer is."),
    "rows": Column("rows", "Output features: how many numbers the layer produces.", ",d"),
    "cols": Column("columns", "Input features: how many numbers the layer reads.", ",d"),
    "dtype": Column("type", "How the original weights are stored."),
    "parameters": Column("weights", "How many weights the layer has: rows × columns.", ",d"),
    "std": Column("spread", "Standard deviation of the weights.", ".3g"),
    "absmax": Column("largest", "The largest magnitude among the weights.", ".3g"),
    "kurtosis": Column("kurtosis", "How heavy the tails are, over a Gaussian's 0; heavy tails are hard to quantize.", ".3g"),
    "outlier_share": Column("outliers", "Share of weights more than 6 standard deviations from the mean.", ".2%"),
    "bits_per_weight": Column("stored bits", "Bits per weight, counted from all that is stored: codes, scales, maps.", ".2f"),
    "nominal_bits": Column("nominal bits", "Bits per weight as the method's paper counts them: codes only.", ".2f"),
    "relative_error": Column("weight error", "‖Ŵ−W‖²/‖W‖²: the share of the weights' energy that was lost.", ".3g"),
    "output_error": Column("output error", "tr(EHEᵀ)/tr(WHWᵀ): the share of output energy lost on the calibration text.", ".3g"),
    "perplexity": Column("perplexity", "exp(mean loss per token): among how many tokens the model is undecided.", ".2f"),
    "perplexity_low": Column("from", "Lower end of the perplexity's 95 % interval.", ".2f"),
    "perplexity_high": Column("to", "Upper end of the perplexity's 95 % interval.", ".2f"),
    "ratio": Column("ratio", "Perplexity over that of the first row, on the same text.", ".3f"),
    "ratio_low": Column("ratio from", "Lower end of the ratio's 95 % interval, document by document.", ".3f"),
    "ratio_high": Column("ratio to", "Upper end of the ratio's 95 % interval, document by document.", ".3f"),
    "block_error": Column("block error", "Share lost of what a block adds to its input, on average over the blocks.", ".3g"),
    "seconds": Column("seconds", "How long quantizing took.", ".2f"),
    "item": Column("stored item", "One thing that is stored for the layer."),
    "bits": Column("bits", "What the item takes in the file, in bits.", ",.0f"),
    "share": Column("share", "Its part of the whole.", ".1%"),
    "shared_by": Column("shared by", "How many layers share the item; each pays its part.", "d"),
    "why": Column("why", "Why the item has to be stored."),
    "recipe": Column("recipe", "The preset and settings that made this result."),
    "from": Column("from", "Left edge of the bin."),
    "to": Column("to", "Right edge of the bin."),
    "original": Column("original", "Of the original weights.", ",d"),
    "quantized": Column("quantized", "Of the quantized weights.", ",d"),
    "first row": Column("first row", "First row of the band.", ",d"),
    "last row": Column("last row", "Last row of the band.", ",d"),
    "column": Column("column", "Which column of the weight: an input feature.", ",d"),
    "largest": Column("largest", "The largest magnitude in the band.", ".3g"),
    "rank": Column("rank", "Place among the most frequent, counted from 1.", ",d"),
    "pattern": Column("pattern", "Signs of neighbouring weights of a row, first column first."),
    "count": Column("count", "How often it occurs.", ",d"),
    "codeword": Column("codeword", "The codeword's number in its codebook.", ",d"),
    "path": Column("path", "Where in the stored layer the codebook is."),
    "length": Column("signs", "Signs that a codeword stands for.", "d"),
    "entries": Column("codewords", "How many codewords the codebook has.", ",d"),
    "rate": Column("index bits", "Index bits a sign.", ".2f"),
    "used": Column("used", "Codewords that this layer uses.", ",d"),
    "dead": Column("dead", "Codewords that no vector of this layer uses.", ",d"),
    "index_entropy": Column("index entropy", "What the indices would take a sign if they were entropy-coded.", ".3f"),
    "flip_rate": Column("flipped signs", "Share of the weights' signs that the codewords change.", ".2%"),
    "flip_bound": Column("least flips", "The least share of flipped signs at this rate if signs are coin flips.", ".2%"),
    "pin": Column("pinned", "The recipe that made it; another result of the same recipe has a number."),
    "quantized_bytes": Column("bytes", "What the quantized layers store.", ",.0f"),
    "tokens_per_second": Column("tokens/s", "How fast it writes on this machine: the median of rounds.", ",.0f"),
    "resident_bytes": Column("bytes in memory", "What its weights take in memory while it runs.", ",d"),
    "bytes": Column("bytes on disk", "Size of its model.safetensors, with all tensors of the model.", ",d"),
    "text_tokens": Column("tokens read", "Tokens of the evaluation text that were scored.", ",d"),
    "slowest": Column("slowest", "The slowest round, tokens a second.", ",.0f"),
    "fastest": Column("fastest", "The fastest round, tokens a second.", ",.0f"),
    "quantile": Column("share of weights", "So many weights have at most this error.", ".0%"),
    "position": Column("position", "Which token after the prompt, counted from 1.", "d"),
    "kl_original": Column("KL, original text", "KL(original ‖ quantized) in nats where both read the original's text.", ".3g"),
    "kl_quantized": Column("KL, quantized text", "The same where both read the text that the quantized model writes.", ".3g"),
    "token": Column("token", "One piece of text as the model reads it."),
    "p_original": Column("original", "Probability that the original model gives this token here.", ".1%"),
    "p_quantized": Column("quantized", "Probability that the quantized model gives this token here.", ".1%"),
    "step": Column("step", "Steps of gradient descent so far.", "d"),
    "loss": Column("training loss", "Share of the output's energy lost on the text of this step.", ".3g"),
    "held_out": Column("held-out loss", "The same on text that is never trained on, for what would be stored.", ".3g"),
    "input": Column("input", "Which input feature.", ",d"),
    "factor": Column("factor", "What the input is multiplied with; below zero where its sign is flipped.", ".3g"),
    "matrix factor": Column("matrix", "Which factor of the rotation's Kronecker product."),
    "transform": Column("transform", "What changes the layer's input before it meets the stored codes."),
    "where": Column("where", "Folded into weights, at no cost, or online, for every token."),
    "multiply_adds": Column("multiply-adds", "What it costs for each token.", ",d"),
    "online_share": Column("of the layer", "Its multiply-adds over those of the layer itself, rows × columns.", ".2%"),
    "transform_bits": Column("its bits", "Bits stored for it, a weight of the layer.", ".4f"),
    "turned": Column("turned", "How far from the identity: 0 for no rotation, 1 for a right angle on average.", ".3g"),
    "group": Column("group", "Which weights are coded alike."),
    "magnitude": Column("mean size", "Mean magnitude of the group's weights, in the basis that is coded.", ".3g"),
    "coder": Column("coder", "Which coder of the recipe, counted from 0.", "d"),
    "sweep": Column("sweep", "Alternating sweeps so far; 0 is the closed-form start.", "d"),
    "error": Column("squared error", "Sum of squared errors of the weights.", ".4g"),
    "scrub_step": Column("step", "Which step of the run, counted from 1.", ",d"),
    "phase": Column("phase", "What the quantizer does there."),
    "number": Column("number", "Which step of its phase, counted from 1.", ",d"),
    "first column": Column("first column", "First column that the step is about.", ",d"),
    "last column": Column("last column", "Last column that the step is about.", ",d"),
    "phase_loss": Column("loss", "What the phase lowers, or the error that adds up, over the largest in the phase.", ".1%"),
    "moved": Column("moved", "How far columns not yet coded have moved, over their energy, in the watched rows.", ".2%"),
    "running": Column("still moving", "How many sets of scales took this sweep.", ",d"),
    "row": Column("row", "Which output feature.", ",d"),
    "plane": Column("plane", "Which sign plane, counted from 1.", "d"),
    "scale": Column("scale α", "What a sign is multiplied with.", ".4g"),
    "source": Column("source", "Which text; derived ones say so."),
    "weight": Column("share", "The source's share of the mixture.", ".0%"),
    "jaccard": Column("overlap", "Salient channels that both have over those that either has (Jaccard).", ".2f"),
    "shared": Column("in common", "Salient channels that the mixture and the source share.", ",d"),
    "channels": Column("channels", "How many channels count as salient.", ",d"),
    "energy": Column("energy", "Share of the source's held-out output energy in the mixture's salient channels.", ".1%"),
    "eigenvalue": Column("eigenvalue", "Eigenvalue of the second moment E[x xᵀ].", ".3g"),
    "cumulative": Column("cumulative", "Share of the second moment in this and all larger eigenvalues.", ".1%"),
    "calibrated": Column("calibrated", "Output error on the half that was calibrated on.", ".3g"),
    "held_out_error": Column("held out", "Output error on the half that was not calibrated on.", ".3g"),
    "own": Column("own", "Held-out output error when calibrated on this source alone.", ".3g"),
    "sample": Column("document", "The document's number in its half of the text.", "d"),
    "begins": Column("begins", "The document's first words."),
    "moment_change": Column("moment change", "‖H without it − H‖/‖H‖.", ".3g"),
    "error_change": Column("error change", "Held-out output error without it minus with it; above 0 it helps.", ".3g"),
    "added_loss": Column(
        "added loss", "Loss over the original's, nats per token: the logarithm of the perplexity's ratio.", ".3g"
    ),
    "scheme": Column("scheme", "How keys and values are stored."),
    "bits_per_value": Column("stored bits", "Bits per key or value of packed tokens: codes, scales, maps.", ".2f"),
    "bytes_per_token": Column("bytes a token", "All layers' keys and values; the newest tokens in fp16 included.", ",.0f"),
    "format": Column("format", "How the matrix is held: torch's own types, packed formats, or the selected layer."),
    "batch": Column("inputs", "How many inputs are multiplied at a time.", ",d"),
    "microseconds": Column("µs", "Median time of one product, in microseconds.", ".4g"),
    "speedup": Column("× torch", "How many times as fast as torch's own matrix in the same run.", ".3g"),
    "bits_held": Column("bits held", "Bits per weight that are held in memory and read at each product.", ".2f"),
    "intensity": Column("operations a byte", "Operations of the product for each byte that is read.", ".3g"),
    "operations": Column("GFLOP/s", "10⁹ operations of the matrix product a second, whatever the kernel really does.", ".4g"),
    "memory_allows": Column("memory allows", "GFLOP/s that reading memory at full speed would allow.", ".4g"),
    "distance": Column("distance", "How far the product is from float64, as a share of its norm.", ".2g"),
    "kl": Column("KL", "KL divergence from the original's next-token distribution, nats per token.", ".3g"),
    "tokens": Column("tokens", "How many tokens were measured.", ",d"),
    "model": Column("model", "Which model."),
    "megabytes": Column("MB", "Size of the weight file, in 10⁶ bytes.", ".2f"),
    "kl_low": Column("KL from", "Lower end of the KL's 95 % interval.", ".3g"),
    "kl_high": Column("KL to", "Upper end of the KL's 95 % interval.", ".3g"),
    "top1_agreement": Column("top-1 agreement", "Share of tokens whose likeliest successor is the original's.", ".1%"),
    "section": Column("part", "Which part of the cards differs."),
    "first": Column("was", "In the first card."),
    "second": Column("is", "In the second card."),
    "change": Column("change", "By how much, where it is a number.", ".3g"),
    "allowed": Column("allowed", "The largest change that counts as none.", ".3g"),
    "within": Column("within", "Whether the change is within its tolerance, or may be."),
    "top1_changed": Column("changed tokens", "Share of tokens whose likeliest successor changed.", ".2%"),
    "floor": Column(
        "half-precision noise", "The KL of computing the original model in bfloat16: below it nothing means anything.", ".3g"
    ),
    "significant": Column("significant", "Whether the KL's interval lies above the half-precision noise."),
    "accumulated": Column("accumulated KL", "KL with this layer and all before it quantized.", ".3g"),
    "earlier": Column("one layer", "The earlier layer of the pair."),
    "later": Column("other layer", "The later layer of the pair."),
    "together": Column("KL together", "KL with both layers quantized.", ".3g"),
    "apart": Column("KL apart", "The sum of both layers' own KL.", ".3g"),
    "interaction": Column("interaction", "KL together minus KL apart: above zero where two layers hurt each other.", ".3g"),
    "interaction_low": Column("from", "Lower end of the interaction's 95 % interval.", ".3g"),
    "interaction_high": Column("to", "Upper end of the interaction's 95 % interval.", ".3g"),
    "lim": Column("LIM", "−cos(block input, block output): higher where a block changes more.", ".4f"),
    "zd": Column("ZD", "−(share of weights more than one standard deviation above the mean): higher for heavier tails.", ".4f"),
    "entropy": Column("entropy", "Entropy of the clusters of a block's outputs, bits.", ".2f"),
    "chosen": Column("quantized writes", "The token that the quantized model would write here."),
    "agrees": Column("agrees", "Whether both models write this token."),
    "kl_restored": Column(
        "KL restored", "KL at the fork with this layer back at full precision and all others quantized.", ".3g"
    ),
    "lead_restored": Column("lead restored", "The original token's lead over its rival with this layer restored, nats.", ".3g"),
    "lead_gain": Column("lead won back", "What restoring this layer gives the original token against its rival, nats.", ".3g"),
    "holds": Column("removes the fork", "Whether with this layer restored all tokens up to the fork are the original's."),
    "kl_alone": Column("KL alone", "KL at the fork with only this layer quantized.", ".3g"),
    "channel": Column("channel", "Which input feature of the layer: a column of its weight.", ",d"),
    "cumulative_share": Column("all up to here", "Share of this channel and all that rank before it.", ".1%"),
    "measure": Column("measure", "What makes a channel salient."),
    "times": Column("× average", "Over the average channel.", ".3g"),
    "stop": Column("stop", "Where the residual stream is read and written."),
    "written": Column("written", "Norm of the weights that write the channel here, over the average channel.", ".3g"),
    "gain": Column("norm gain", "What the norm multiplies the channel with, over the average channel.", ".3g"),
    "input_size": Column("input", "Root mean square of what the layers read here, over the average channel.", ".3g"),
    "read": Column("read", "Norm of the weights that read the channel here, over the average channel.", ".3g"),
    "part": Column("part", "Whether a row makes the channel or a column reads it."),
    "index": Column("number", "Which row or column.", ",d"),
    "share_below": Column("below", "Share of the weights that are smaller.", ".3%"),
    "weights": Column("weights", "Quantile of the weights, in standard deviations from their mean.", ".3g"),
    "normal": Column("normal law", "The same quantile of a normal law.", ".3g"),
    "laplace": Column("Laplace law", "The same quantile of a Laplace law.", ".3g"),
    "quantized_sigma": Column("quantized", "Quantile of the quantized weights, in their standard deviations.", ".3g"),
    "least": Column("least", "The least weight.", ".3g"),
    "low": Column("5 %", "One weight in twenty is smaller.", ".3g"),
    "median": Column("median", "Half of the weights are smaller.", ".3g"),
    "high": Column("95 %", "One weight in twenty is larger.", ".3g"),
    "most": Column("most", "The largest weight.", ".3g"),
    "least quantized": Column("least, quantized", "The least quantized weight.", ".3g"),
    "low quantized": Column("5 %, quantized", "One quantized weight in twenty is smaller.", ".3g"),
    "median quantized": Column("median, quantized", "Half of the quantized weights are smaller.", ".3g"),
    "high quantized": Column("95 %, quantized", "One quantized weight in twenty is larger.", ".3g"),
    "most quantized": Column("most, quantized", "The largest quantized weight.", ".3g"),
    "value": Column("weight", "The weight itself.", ".4g"),
    "sigma": Column("σ", "Distance from the mean in standard deviations of all weights.", ".3g"),
    "became": Column("became", "What quantizing made of it.", ".4g"),
    "singular": Column("original", "Singular value of the original weights.", ".4g"),
    "singular_quantized": Column("quantized", "Singular value of the quantized weights.", ".4g"),
    "singular_difference": Column("difference", "Singular value of what quantizing changed.", ".4g"),
    "error_share": Column("of the error", "Its part of the layer's squared error.", ".2%"),
    "served": Column("relative error", "Squared error of the weights under this code over their energy.", ".3g"),
    "nearest": Column("most like", "The codeword that is nearest to it.", ",d"),
    "gap": Column("apart", "How many signs, or what distance, lie between the two.", ".3g"),
    "which": Column("which", "The chosen codes, or all others."),
    "figure": Column("figure", "What was measured."),
    "before": Column("before", "As it is stored now.", ".4g"),
    "after": Column("after", "With the edit.", ".4g"),
    "difference": Column("difference", "After less before.", ".3g"),
    "interval": Column("95 %", "95 % interval of the figure after the edit."),
    "label": Column("what", "A part of the whole, or a stored item in it."),
    "sensitivity": Column(
        "sensitivity", "KL when this layer alone is quantized by the coarsest recipe that was measured (tab Budget).", ".3g"
    ),
    "mean": Column("mean μ", "What is added to every weight of the row.", ".3g"),
}


def label(column: str) -> str:
    """The header of a column; a name that the glossary lacks stands for itself."""
    return COLUMNS[column].label if column in COLUMNS else column


def meaning(column: str) -> str:
    """The tooltip of a column, or an empty text."""
    return COLUMNS[column].meaning if column in COLUMNS else ""


def form(column: str) -> str:
    """The Python format of a column's numbers, "" for text and for columns that the glossary lacks."""
    return COLUMNS[column].format if column in COLUMNS else ""


def digits(column: str) -> bool:
    """Whether a column's numbers are rounded to significant digits."""
    return form(column).endswith("g")


def written(column: str, value: object) -> str:
    """A value as a reader sees it: formatted, and a dash where there is none."""
    if value is None or (isinstance(value, float) and value != value):
        return "–"
    return format(value, form(column)) if form(column) and not isinstance(value, str) else str(value)
