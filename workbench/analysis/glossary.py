"""The glossary: every column that a table of this package shows, with its label, meaning and number format."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """One column: `label` for a header, `meaning` for a tooltip, `format` a Python format for its numbers ("" for text)."""

    label: str
    meaning: str
    format: str = ""


COLUMNS: dict[str, Column] = {
    "name": Column("layer", "The layer's full name in the model."),
    "block": Column("block", "The transformer block of the layer, counted from 0.", "d"),
    "matrix": Column("matrix", "The layer's matrix within its block."),
    "rows": Column("rows", "Number of output features.", ",d"),
    "cols": Column("columns", "Number of input features.", ",d"),
    "dtype": Column("type", "Data type of the original weights, or the format that they were quantized to."),
    "stored_bits": Column("stored bits", "Bits stored for each original weight, scales included.", ".2f"),
    "parameters": Column("weights", "Number of weights: rows × columns.", ",d"),
    "std": Column("spread", "Standard deviation of the weights.", ".3g"),
    "absmax": Column("largest", "The largest magnitude among the weights.", ".3g"),
    "kurtosis": Column("kurtosis", "Excess kurtosis: 0 for a normal distribution; heavy tails are hard to quantize.", ".3g"),
    "outlier_share": Column("outliers", "Share of weights more than 6 standard deviations from the mean.", ".2%"),
    "bits_per_weight": Column("stored bits", "Bits per weight, including everything that is stored: codes, scales, maps.", ".2f"),
    "coverage": Column("coverage", "Share of the model's weights that are quantized; the bits per weight refer to these.", ".1%"),
    "nominal_bits": Column("nominal bits", "Bits per weight as the method's paper counts them: codes only.", ".2f"),
    "relative_error": Column("weight error", "‖Ŵ−W‖²/‖W‖²: the share of the weights' energy that is lost.", ".3g"),
    "output_error": Column(
        "output error", "tr(EHEᵀ)/tr(WHWᵀ): the share of output energy that is lost on the calibration text.", ".3g"
    ),
    "error_difference": Column(
        "difference of error",
        "Output error of the run on show minus that of the run it is compared with; of weights where an output error is missing.",
        "+.3g",
    ),
    "fork_blame": Column(
        "blame for the fork", "Lead of the original's tokens that restoring this layer alone wins back, in nats.", ".3g"
    ),
    "error_beside": Column("error beside", "Error of the layer in the run that is compared with.", ".3g"),
    "error_shown": Column("error", "Error of the layer in the run on show.", ".3g"),
    "error_of": Column("error of", "What the error is of: outputs where both runs measured it, else weights."),
    "bits_beside": Column("bits beside", "Bits per weight that the run stores that is compared with.", ".3f"),
    "bits_shown": Column("bits on show", "Bits per weight that the run on show stores.", ".3f"),
    "beside": Column("compared", "Number of weights in the bin after the quantization that is compared with.", ",d"),
    "bits_difference": Column(
        "difference of bits", "Stored bits of the run on show minus those of the run it is compared with.", "+.2f"
    ),
    "perplexity": Column(
        "perplexity", "exp(mean loss per token): the effective number of tokens the model chooses between.", ".2f"
    ),
    "perplexity_low": Column("from", "Lower end of the perplexity's 95 % interval.", ".2f"),
    "perplexity_high": Column("to", "Upper end of the perplexity's 95 % interval.", ".2f"),
    "ratio": Column("ratio", "Perplexity divided by that of the first row, on the same text.", ".3f"),
    "ratio_low": Column("ratio from", "Lower end of the ratio's 95 % interval, paired over documents.", ".3f"),
    "ratio_high": Column("ratio to", "Upper end of the ratio's 95 % interval, paired over documents.", ".3f"),
    "block_error": Column("block error", "Relative error of what a block adds to its input, averaged over the blocks.", ".3g"),
    "seconds": Column("seconds", "Time to quantize.", ".2f"),
    "item": Column("stored item", "An item that is stored for the layer."),
    "bits": Column("bits", "Size of the item in the file, in bits.", ",.0f"),
    "share": Column("share", "Share of the total.", ".1%"),
    "shared_by": Column("shared by", "Number of layers that share the item; its bits are divided among them.", "d"),
    "why": Column("why", "Why the item has to be stored."),
    "recipe": Column("recipe", "Preset and settings of this result."),
    "title": Column("method", "Name of the method, as papers write it."),
    "family": Column("family", "Family of methods that share the main idea."),
    "tried_rows": Column("rows tried", "Number of the layer's rows on which the error was measured.", ",d"),
    "from": Column("from", "Left edge of the bin."),
    "to": Column("to", "Right edge of the bin."),
    "original": Column("original", "Number of original weights in the bin.", ",d"),
    "quantized": Column("quantized", "Number of quantized weights in the bin.", ",d"),
    "first row": Column("first row", "First row of the band.", ",d"),
    "last row": Column("last row", "Last row of the band.", ",d"),
    "column": Column("column", "Column of the weight matrix: an input feature.", ",d"),
    "largest": Column("largest", "The largest magnitude in the band.", ".3g"),
    "rank": Column("rank", "Rank by frequency, counted from 1.", ",d"),
    "pattern": Column("pattern", "Signs of neighbouring weights in a row, first column first."),
    "count": Column("count", "Number of occurrences.", ",d"),
    "codeword": Column("codeword", "The codeword's number in its codebook.", ",d"),
    "path": Column("path", "Location of the codebook in the stored layer."),
    "length": Column("signs", "Signs per codeword.", "d"),
    "entries": Column("codewords", "Number of codewords in the codebook.", ",d"),
    "rate": Column("index bits", "Index bits per sign.", ".2f"),
    "used": Column("used", "Codewords that this layer uses.", ",d"),
    "dead": Column("dead", "Codewords that no vector of this layer uses.", ",d"),
    "index_entropy": Column("index entropy", "Bits per sign if the indices were entropy-coded.", ".3f"),
    "flip_rate": Column("flipped signs", "Share of the weights' signs that the codewords change.", ".2%"),
    "flip_bound": Column("lower bound", "Lower bound on the share of flipped signs at this rate for random signs.", ".2%"),
    "pin": Column("pinned", "The recipe of the result; further results of the same recipe are numbered."),
    "quantized_bytes": Column("bytes", "Bytes stored by the quantized layers.", ",.0f"),
    "tokens_per_second": Column("tokens/s", "Generation speed on this machine: median of the rounds.", ",.0f"),
    "resident_bytes": Column("bytes in memory", "Memory that its weights take at run time.", ",d"),
    "bytes": Column("bytes on disk", "Size of its packed.safetensors, with all tensors of the model.", ",d"),
    "text_tokens": Column("tokens read", "Number of scored tokens of the evaluation text.", ",d"),
    "slowest": Column("slowest", "The slowest round, in tokens/s.", ",.0f"),
    "fastest": Column("fastest", "The fastest round, in tokens/s.", ",.0f"),
    "quantile": Column("share of weights", "Share of the weights that have at most this error.", ".0%"),
    "position": Column("position", "Position of the token after the prompt, counted from 1.", "d"),
    "kl_original": Column("KL, original text", "KL(original ‖ quantized) in nats, on the original's text.", ".3g"),
    "kl_quantized": Column("KL, quantized text", "KL(original ‖ quantized) in nats, on the quantized model's text.", ".3g"),
    "token": Column("token", "The token as text."),
    "p_original": Column("original", "Probability of this token under the original model.", ".1%"),
    "p_quantized": Column("quantized", "Probability of this token under the quantized model.", ".1%"),
    "step": Column("step", "Steps of gradient descent so far.", "d"),
    "loss": Column("training loss", "Share of output energy lost on the text of this step.", ".3g"),
    "held_out": Column(
        "held-out loss", "Share of output energy lost on held-out text, with parameters rounded as stored.", ".3g"
    ),
    "input": Column("input", "Index of the input feature.", ",d"),
    "factor": Column("factor", "Factor of the input; negative if its sign is flipped.", ".3g"),
    "matrix factor": Column("matrix", "Factor of the rotation's Kronecker product."),
    "transform": Column("transform", "Transform of the layer's input before the matmul with the stored codes."),
    "where": Column("where", "Folded into weights (no cost), or online (for every token)."),
    "multiply_adds": Column("multiply-adds", "Multiply-adds per token.", ",d"),
    "online_share": Column("of the layer", "Multiply-adds relative to those of the layer itself (rows × columns).", ".2%"),
    "transform_bits": Column("its bits", "Bits stored for it, per weight of the layer.", ".4f"),
    "turned": Column("turned", "Distance from the identity: 0 for no rotation, 1 for a right angle on average.", ".3g"),
    "group": Column("group", "Group of weights that are coded in the same way."),
    "magnitude": Column("mean magnitude", "Mean magnitude of the group's weights, in the basis that is coded.", ".3g"),
    "coder": Column("coder", "Coder of the recipe, counted from 0.", "d"),
    "sweep": Column("sweep", "Alternating sweeps so far; 0 is the closed-form start.", "d"),
    "error": Column("squared error", "Sum of squared errors of the weights.", ".4g"),
    "scrub_step": Column("step", "Step of the run, counted from 1.", ",d"),
    "phase": Column("phase", "Phase of the quantizer's run."),
    "number": Column("number", "Step within its phase, counted from 1.", ",d"),
    "first column": Column("first column", "First column of the step.", ",d"),
    "last column": Column("last column", "Last column of the step.", ",d"),
    "phase_loss": Column("loss", "Loss of the phase, or its accumulated error, relative to the maximum of the phase.", ".1%"),
    "moved": Column("moved", "Relative change of the columns not yet coded, in the recorded rows.", ".2%"),
    "running": Column("not converged", "Number of sets of scales that took this sweep.", ",d"),
    "row": Column("row", "Index of the output feature.", ",d"),
    "plane": Column("plane", "Sign plane, counted from 1.", "d"),
    "scale": Column("scale α", "Scale that multiplies the sign.", ".4g"),
    "source": Column("source", "Name of the text; derived texts are marked."),
    "weight": Column("share", "The source's share of the mixture.", ".0%"),
    "jaccard": Column("overlap", "Salient channels in both sets divided by those in either set (Jaccard index).", ".2f"),
    "shared": Column("in common", "Salient channels shared by the mixture and the source.", ",d"),
    "channels": Column("channels", "Number of salient channels.", ",d"),
    "energy": Column("energy", "Share of the source's held-out output energy in the mixture's salient channels.", ".1%"),
    "eigenvalue": Column("eigenvalue", "Eigenvalue of the second moment E[x xᵀ].", ".3g"),
    "cumulative": Column("cumulative", "Share of the second moment in this and all larger eigenvalues.", ".1%"),
    "calibrated": Column("calibrated", "Output error on the half used for calibration.", ".3g"),
    "held_out_error": Column("held out", "Output error on the half not used for calibration.", ".3g"),
    "own": Column("this text only", "Held-out output error with calibration on this source only.", ".3g"),
    "sample": Column("document", "The document's number in its half of the text.", "d"),
    "begins": Column("begins", "The document's first words."),
    "moment_change": Column("moment change", "‖H without the document − H‖/‖H‖.", ".3g"),
    "error_change": Column(
        "error change", "Held-out output error without the document minus with it; positive if it helps.", ".3g"
    ),
    "added_loss": Column(
        "added loss", "Loss minus the original's, in nats per token: the logarithm of the perplexity ratio.", ".3g"
    ),
    "scheme": Column("scheme", "How keys and values are stored."),
    "bits_per_value": Column("stored bits", "Bits per key or value of packed tokens: codes, scales, maps.", ".2f"),
    "bytes_per_token": Column("bytes per token", "Keys and values of all layers, including the newest tokens in fp16.", ",.0f"),
    "format": Column("format", "Format of the matrix: a torch type, a packed format, or the selected layer."),
    "batch": Column("inputs", "Batch size: inputs multiplied at a time.", ",d"),
    "microseconds": Column("µs", "Median time of one matmul, in microseconds.", ".4g"),
    "speedup": Column("× torch", "Speedup over torch in the same run.", ".3g"),
    "bits_held": Column("bits held", "Bits per weight that are held in memory and read by each matmul.", ".2f"),
    "intensity": Column("operations per byte", "Operations of the matmul per byte that is read.", ".3g"),
    "operations": Column("GFLOP/s", "10⁹ operations of the dense matmul per second, whatever the kernel really computes.", ".4g"),
    "memory_allows": Column("memory allows", "GFLOP/s at full memory bandwidth.", ".4g"),
    "distance": Column("distance", "Relative error of the matmul, compared with float64.", ".2g"),
    "kl": Column("KL", "KL divergence from the original's next-token distribution, nats per token.", ".3g"),
    "tokens": Column("tokens", "Number of tokens measured.", ",d"),
    "model": Column("model", "Name of the model."),
    "megabytes": Column("MB", "Size of the weight file, in 10⁶ bytes.", ".2f"),
    "kl_low": Column("KL from", "Lower end of the KL's 95 % interval.", ".3g"),
    "kl_high": Column("KL to", "Upper end of the KL's 95 % interval.", ".3g"),
    "top1_agreement": Column("top-1 agreement", "Share of tokens whose top-1 prediction is that of the original.", ".1%"),
    "section": Column("part", "Part of the cards that differs."),
    "first": Column("was", "Value in the first card."),
    "second": Column("is", "Value in the second card."),
    "change": Column("change", "Size of the change, for numbers.", ".3g"),
    "allowed": Column("allowed", "Largest change within tolerance.", ".3g"),
    "within": Column("within", "Whether the change is within its tolerance or allowed."),
    "top1_changed": Column("changed tokens", "Share of tokens whose top-1 prediction changed.", ".2%"),
    "floor": Column(
        "half-precision noise", "KL of the original model computed in bfloat16; a smaller KL is not significant.", ".3g"
    ),
    "significant": Column("significant", "Whether the KL's interval lies above the half-precision noise."),
    "accumulated": Column("accumulated KL", "KL with this layer and all before it quantized.", ".3g"),
    "earlier": Column("one layer", "The earlier layer of the pair."),
    "later": Column("other layer", "The later layer of the pair."),
    "together": Column("KL together", "KL with both layers quantized.", ".3g"),
    "apart": Column("KL sum", "Sum of the KLs of each layer alone.", ".3g"),
    "interaction": Column(
        "interaction", "KL together minus the sum of KLs: positive if two layers amplify each other's error.", ".3g"
    ),
    "interaction_low": Column("from", "Lower end of the interaction's 95 % interval.", ".3g"),
    "interaction_high": Column("to", "Upper end of the interaction's 95 % interval.", ".3g"),
    "lim": Column("LIM", "−cos(block input, block output): higher for blocks that change their input more.", ".4f"),
    "zd": Column("ZD", "−(share of weights more than one standard deviation above the mean): higher for heavier tails.", ".4f"),
    "entropy": Column("entropy", "Entropy of the clusters of a block's outputs, bits.", ".2f"),
    "chosen": Column("quantized writes", "The token that the quantized model would generate here."),
    "agrees": Column("agrees", "Whether both models generate this token."),
    "kl_restored": Column(
        "KL restored", "KL at the fork with this layer restored to full precision and all others quantized.", ".3g"
    ),
    "lead_restored": Column("lead restored", "The original token's lead over its rival with this layer restored, nats.", ".3g"),
    "lead_gain": Column("lead recovered", "Gain in the original token's lead by restoring this layer, nats.", ".3g"),
    "holds": Column("removes the fork", "Whether restoring this layer makes all tokens up to the fork equal to the original's."),
    "guilty": Column("to blame", "Whether the layer is in the smallest set found that removes the fork."),
    "fork": Column("fork", "Position of the first differing token after the prompt, counted from 1.", "d"),
    "kl_fork": Column("KL at the fork", "KL of the prediction of the token at the fork, nats.", ".3g"),
    "blamed": Column("blamed", "The layer whose restoration recovers the most for the original's tokens up to the fork."),
    "needed": Column("layers needed", "Smallest number of restored layers found that removes the fork.", "d"),
    "random": Column("random layers needed", "Number of random layers that removes the fork.", "d"),
    "delay": Column("delay", "Number of tokens by which the fork moves with the fewest layers restored.", ".0f"),
    "random_delay": Column(
        "random delay", "Number of tokens by which the fork moves with as many random layers restored.", ".0f"
    ),
    "texts": Column("texts", "Number of documents that the intervals are computed over.", "d"),
    "restored": Column("restored", "Maximum number of layers restored to full precision.", "d"),
    "chance": Column("random", "Share of forks removed by restoring as many random layers.", ".0%"),
    "chance_low": Column("random from", "Lower end of its 95 % interval.", ".0%"),
    "chance_high": Column("random to", "Upper end of its 95 % interval.", ".0%"),
    "share_low": Column("share from", "Lower end of the share's 95 % interval.", ".0%"),
    "share_high": Column("share to", "Upper end of the share's 95 % interval.", ".0%"),
    "forks": Column("forks", "Number of prompts after which the texts diverge.", "d"),
    "kl_alone": Column("KL alone", "KL at the fork with only this layer quantized.", ".3g"),
    "query": Column("from", "Position of the token that attends, counted from 0.", "d"),
    "query_token": Column("token", "The token that attends."),
    "key": Column("to", "Position of the token that is attended to, counted from 0.", "d"),
    "key_token": Column("attended token", "The token that is attended to."),
    "attention": Column("attention", "Share of a token's attention that another token gets, in the original model.", ".3g"),
    "attention_quantized": Column("quantized", "The same share in the quantized model.", ".3g"),
    "attention_change": Column("change", "Attention in the quantized model minus that in the original.", ".3g"),
    "cache_channel": Column("channel", "Channel of the key-value cache, the heads side by side.", ",d"),
    "channel_size": Column("size", "Root mean square of the channel over the packed tokens.", ".3g"),
    "channel_error": Column("error", "Share of the channel's energy that is lost.", ".3g"),
    "channel_share": Column("of the error", "Share of the squared error of all channels.", ".1%"),
    "channel": Column("channel", "Input feature of the layer: a column of its weight matrix.", ",d"),
    "weight_rms": Column("weight rms", "Root mean square of the channel's weights.", ".3g"),
    "second_moment": Column("second moment", "Mean square of the channel's input on the calibration text.", ".3g"),
    "cumulative_share": Column("cumulative share", "Share of this channel and all that rank above it.", ".1%"),
    "measure": Column("measure", "Measure of saliency."),
    "times": Column("× average", "Relative to the average channel.", ".3g"),
    "stop": Column("stop", "Position at which the residual stream is read or written."),
    "written": Column("written", "Norm of the weights that write the channel here, relative to the average channel.", ".3g"),
    "gain": Column("norm gain", "Gain of the norm for the channel, relative to the average channel.", ".3g"),
    "input_size": Column("input", "Root mean square of the layers' input here, relative to the average channel.", ".3g"),
    "read": Column("read", "Norm of the weights that read the channel here, relative to the average channel.", ".3g"),
    "part": Column("part", "Whether a row writes the channel or a column reads it."),
    "index": Column("number", "Index of the row or column.", ",d"),
    "share_below": Column("below", "Share of the weights that are smaller.", ".3%"),
    "weights": Column("weights", "Quantile of the weights, in standard deviations from their mean.", ".3g"),
    "normal": Column("normal", "The same quantile of the normal distribution.", ".3g"),
    "laplace": Column("Laplace", "The same quantile of the Laplace distribution.", ".3g"),
    "quantized_sigma": Column("quantized", "Quantile of the quantized weights, in their standard deviations.", ".3g"),
    "least": Column("minimum", "The smallest weight.", ".3g"),
    "low": Column("5 %", "5 % of the weights are smaller.", ".3g"),
    "median": Column("median", "Half of the weights are smaller.", ".3g"),
    "high": Column("95 %", "5 % of the weights are larger.", ".3g"),
    "most": Column("maximum", "The largest weight.", ".3g"),
    "least quantized": Column("minimum, quantized", "The smallest quantized weight.", ".3g"),
    "low quantized": Column("5 %, quantized", "5 % of the quantized weights are smaller.", ".3g"),
    "median quantized": Column("median, quantized", "Half of the quantized weights are smaller.", ".3g"),
    "high quantized": Column("95 %, quantized", "5 % of the quantized weights are larger.", ".3g"),
    "most quantized": Column("maximum, quantized", "The largest quantized weight.", ".3g"),
    "value": Column("weight", "The weight itself.", ".4g"),
    "sigma": Column("σ", "Distance from the mean, in standard deviations of all weights.", ".3g"),
    "became": Column("quantized", "The weight after quantization.", ".4g"),
    "singular": Column("original", "Singular value of the original weights.", ".4g"),
    "singular_quantized": Column("quantized", "Singular value of the quantized weights.", ".4g"),
    "singular_difference": Column("difference", "Singular value of the quantization error.", ".4g"),
    "error_share": Column("of the error", "Share of the layer's squared error.", ".2%"),
    "served": Column("relative error", "Squared error of the weights with this code, divided by their energy.", ".3g"),
    "nearest": Column("nearest", "The nearest other codeword.", ",d"),
    "gap": Column("distance", "Distance between the two: differing signs, or Euclidean distance.", ".3g"),
    "which": Column("which", "The selected codes, or all others."),
    "figure": Column("figure", "What was measured."),
    "before": Column("before", "Value before the edit.", ".4g"),
    "after": Column("after", "Value after the edit.", ".4g"),
    "difference": Column("difference", "After minus before.", ".3g"),
    "interval": Column("95 %", "95 % interval of the figure after the edit."),
    "label": Column("what", "A part of the model, or a stored item."),
    "sensitivity": Column(
        "sensitivity", "KL when this layer alone is quantized by the coarsest recipe that was measured (tab Budget).", ".3g"
    ),
    "mean": Column("mean μ", "Mean that is added to every weight of the row.", ".3g"),
}


def label_column(column: str) -> str:
    """The header of a column; a name that the glossary lacks stands for itself."""
    return COLUMNS[column].label if column in COLUMNS else column


def explain_column(column: str) -> str:
    """The tooltip of a column, or an empty text."""
    return COLUMNS[column].meaning if column in COLUMNS else ""


def find_format(column: str) -> str:
    """The Python format of a column's numbers, "" for text and for columns that the glossary lacks."""
    return COLUMNS[column].format if column in COLUMNS else ""


def has_significant_digits(column: str) -> bool:
    """Whether a column's numbers are rounded to significant digits."""
    return find_format(column).endswith("g")


def format_value(column: str, value: object) -> str:
    """A value as a reader sees it: formatted, and a dash where there is none."""
    if value is None or (isinstance(value, float) and value != value):
        return "–"
    return format(value, find_format(column)) if find_format(column) and not isinstance(value, str) else str(value)
