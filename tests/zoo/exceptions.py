"""What is expected not to work, and why: types that transformers itself does not build or run here, and steps that are refused.

Each reason is a regular expression for the sentence that is raised. A type that begins to work makes its test fail.
"""

# types that are no test of the workbench, by what transformers says
NOT_BUILT = {
    "emu3": "Unrecognized configuration class",  # saves its text model under a type that AutoModelForCausalLM does not know
    "gemma3n": "requires the timm library",  # its vision tower comes from another package
    "gemma4_assistant": "hidden_size_per_layer_input must be 0",  # reads another model's hidden states and keys
    "gemma4_unified_assistant": "inputs_embeds and shared_kv_states cannot be None",  # the same
    "mllama": "Unrecognized configuration class",  # as emu3
    "musicgen": "has no attribute 'dropout'",  # writes audio codes; its class wants the configuration of its decoder
    "musicgen_melody": "has no attribute 'dropout'",  # the same
}

# steps that the workbench refuses in one sentence, by type
REFUSED: dict[str, dict[str, str]] = {
    # the text comes to a block several times: what its layers read depends on what they are quantized to
    "dory": {"block run": "runs its block 'layers.0' more than once"},
    "hrm_text": {"block run": "runs its block 'L_module.layers.0' more than once"},
    # one block's weights stand in several places: swapped or packed in one, they would differ from those in the others
    "zamba": {"open": "blocks that share their weights"},
    "zamba2": {"open": "blocks that share their weights"},
}
