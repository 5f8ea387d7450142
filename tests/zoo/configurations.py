"""Small configurations of any model type: one table of field names and sizes, and what single types need beside it."""

from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig

VOCABULARY = 512  # that of the built-in tokenizer
WIDTH, FEED_FORWARD, BLOCKS, HEADS, KEY_VALUE_HEADS, HEAD_WIDTH, EXPERTS, ACTIVE = 64, 96, 2, 4, 2, 16, 4, 2
CONTEXT, WINDOW = 96, 32

# sizes by the names that families give to them; sixteen index heads, since the scores of few are often equal
FIELDS = f"""
{VOCABULARY}: vocab_size vocab_size_per_layer_input decoder_vocab_size unpadded_vocab_size ngram_vocab_size_base
{VOCABULARY}: encoder_hash_byte_group_vocab shape_vocab_size pronunciation_vocab_size
{WIDTH}: hidden_size n_embd d_model dim emb_dim embedding_size embedding_dim word_embed_proj_dim attention_hidden_size
{WIDTH}: lru_width input_embedding_size output_embedding_size backbone_hidden_size shape_embed_dim
{WIDTH}: pronunciation_embed_dim vision_hidden_size cross_attention_hidden_size output_hidden_size ple_embed_dim
{WIDTH}: projector_hidden_size hidden_size_global adapter_in_dim adapter_out_dim adapter_input_size
{WIDTH}: downsample_hidden_size output_channels nemo_conv_channels ext_pw_out_channel depthwise_separable_out_channel
{2 * WIDTH}: ffn_dim n_inner d_ff dff d_inner dim_ff encoder_ffn_dim decoder_ffn_dim feed_forward_size mamba_d_ssm
{FEED_FORWARD}: intermediate_size ffn_hidden_size shared_expert_intermediate_size moe_intermediate_size expert_ffn_hidden_size
{FEED_FORWARD}: intermediate_size_mlp shared_intermediate_size moe_shared_expert_intermediate_size dense_intermediate_size
{FEED_FORWARD}: mlp_dim shared_experts_intermediate_size ffn_intermediate_size
{BLOCKS}: num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_blocks num_decoder_layers
{BLOCKS}: num_encoder_layers depth max_window_layers num_global_layers
{HEADS}: num_attention_heads n_head n_heads num_heads attention_heads encoder_attention_heads decoder_attention_heads
{HEADS}: swa_num_attention_heads num_decoder_attention_heads num_encoder_attention_heads linear_num_value_heads
{HEADS}: linear_num_heads attention_num_heads num_attention_heads_per_layer
{KEY_VALUE_HEADS}: num_key_value_heads swa_num_key_value_heads num_kv_heads num_query_groups linear_num_key_heads n_mamba_heads
{KEY_VALUE_HEADS}: kv_n_heads num_global_key_value_heads
{HEAD_WIDTH}: head_dim swa_head_dim global_head_dim d_head dim_head attention_head_dim attention_head_size kv_channels
{HEAD_WIDTH}: v_head_dim linear_key_head_dim linear_value_head_dim linear_head_dim index_head_dim index_topk mamba_d_head
{HEAD_WIDTH}: mamba_head_dim mamba_headdim mamba_d_state mamba_state_dim ssm_state_size state_size kv_lora_rank
{HEAD_WIDTH}: hidden_size_per_layer_input query_pre_attn_scalar router_hidden_size o_lora_rank qk_rope_head_dim
{HEAD_WIDTH}: index_n_heads
{HEAD_WIDTH // 2}: qk_nope_head_dim rotary_dim time_step_rank mamba_n_heads mamba_num_heads mamba_dt_rank laurel_rank
{HEAD_WIDTH // 2}: gated_norm_rank adapter_rank loop_gate_rank hc_lowrank
{WINDOW}: q_lora_rank sliding_window window_size local_window_size attention_window_size attention_chunk_size
{WINDOW}: sliding_window_size local_attention local_attention_window_len image_size
{EXPERTS}: num_local_experts num_experts n_routed_experts moe_num_experts
{ACTIVE}: num_experts_per_tok num_experts_per_token moe_k top_k moe_topk patch_size
1: n_shared_experts num_shared_experts moe_num_shared_experts n_group topk_group num_expert_group
1: first_k_dense_replace num_dense_layers zero_expert_num mamba_n_groups mamba_ngroups n_groups bos_token_id
1: decoder_start_token_id
0: pad_token_id num_kv_shared_layers num_nextn_predict_layers
{CONTEXT}: max_position_embeddings n_positions max_sequence_length max_seq_len seq_length context_length
{CONTEXT}: max_target_positions n_ctx model_max_length max_source_positions original_max_position_embeddings
"""
SIZES: dict[str, Any] = {
    name: int(size) for size, _, names in (line.partition(":") for line in FIELDS.split("\n")) for name in names.split()
}
SIZES |= {"eos_token_id": 2, "is_decoder": True, "mlp_only_layers": [], "use_mamba_kernels": False, "n_head_kv": None}
PER_BLOCK = {  # lists with one entry a block
    "activation_sparsity_pattern",
    "indexer_types",
    "intermediate_size",
    "layer_rope_theta",
    "layer_types",
    "layers_block_type",
    "mlp_layer_types",
    "no_rope_layers",
    "num_attention_heads_per_layer",
}
MOST_BLOCKS = 4

# what single types, or parts of composed ones, need beside the table, and why
OVERRIDES: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},  # the default names no block with attention
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}}
    },  # the default has none
    "dbrx": {
        "attn_config": {"kv_n_heads": KEY_VALUE_HEADS, "rope_theta": 10000.0, "clip_qkv": 8.0}
    },  # the default has neither an angle nor a limit
    "dots3_note_text": {
        "swa_num_attention_heads": HEADS,
        "swa_num_key_value_heads": HEADS,
        "swa_q_lora_rank": 32,
        "swa_kv_lora_rank": HEAD_WIDTH,
        "swa_head_dim": HEAD_WIDTH + 8,
        "swa_qk_nope_head_dim": 8,
        "swa_qk_rope_head_dim": HEAD_WIDTH,
        "swa_v_head_dim": HEAD_WIDTH,
    },  # sizes of its sliding blocks, which are no fields
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},  # spelled otherwise than a list with one entry a block
    "granitemoehybrid": {"layer_types": ["linear_attention", "full_attention"]},  # the default has no block with attention
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2},  # one block of each kind
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},  # the default has none
    "mamba2": {"head_dim": 32},  # heads of this width make up the expanded width
    "mllama_text_model": {"num_hidden_layers": 3, "cross_attention_layers": [1]},  # blocks are numbered
    "prophetnet": {"max_position_embeddings": CONTEXT + 2},  # begins at 1 and looks a position ahead
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": HEAD_WIDTH,
        "indexer_budget": 32,
        "indexer_compress_ratio": 4,
        "ple_layer_ids": [1],
        "heads_per_ngram": 2,
        "split_ngram_parts": 4,
    },  # the default has no indexer
    "recurrent_gemma": {"num_hidden_layers": 3},  # its pattern is three blocks long
    "reformer": {
        "axial_pos_embds_dim": (32, 32),
        "axial_pos_shape": (8, 12),
        "attn_layers": ["local", "lsh"],
        "local_attn_chunk_length": 32,
        "lsh_attn_chunk_length": 32,
        "num_buckets": 4,
        "hash_seed": 0,
    },  # sums and products that its positions have to meet; buckets are drawn anew for each pass without a seed
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},  # the default has no language of its own
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "attention_hidden_size": 2 * WIDTH,
        "attention_head_dim": 2 * HEAD_WIDTH,
    },  # two blocks share weights
    "zamba2": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "attention_hidden_size": 2 * WIDTH,
        "attention_head_dim": 2 * HEAD_WIDTH,
        "n_mamba_heads": 8,
    },  # as above
    "zaya": {"num_experts_per_tok": 1},  # the only number that its check allows
}
# families whose first position is 1: their table of positions has a row more than tokens that can be read
OFFSET = ("roberta", "camembert", "xlm-roberta", "xlm-roberta-xl", "data2vec-text", "roberta-prelayernorm", "xmod")
for kind in OFFSET:
    OVERRIDES.setdefault(kind, {})["max_position_embeddings"] = CONTEXT + 1


def tiny_configuration(kind: str) -> PretrainedConfig:
    """The configuration of a tiny model of type `kind`."""
    return shrunk(CONFIG_MAPPING[kind])


def shrunk(family: type[PretrainedConfig]) -> PretrainedConfig:
    """A configuration of one class with every known field small, and so the configurations inside it."""
    default = family()
    fields, aliases = default.to_dict(), family.attribute_map
    known = {name for name in SIZES if name in fields or aliases.get(name, name) in fields}
    # a field that stands for another under an alias is given once
    small = {name: SIZES[name] for name in known if not (name in aliases and aliases[name] in known)}
    parts = {name: getattr(default, name, None) for name in family.sub_configs}
    small |= {name: shrunk(type(part)) for name, part in parts.items() if isinstance(part, PretrainedConfig)}
    if "kv_lora_rank" in small and "num_key_value_heads" in small:
        small["num_key_value_heads"] = HEADS  # compressed keys and values are expanded for every head
    small |= one_block_of_each_kind(default)
    return family(**(small | OVERRIDES.get(family.model_type, {})))


def one_block_of_each_kind(default: PretrainedConfig) -> dict[str, Any]:
    """Fields with one entry a block, cut down to blocks that differ; at least BLOCKS and at most MOST_BLOCKS of them."""
    count: int = getattr(default, "num_hidden_layers", 0)
    lists = {name: value for name, value in default.to_dict().items() if name in PER_BLOCK and isinstance(value, list)}
    lists = {name: value for name, value in lists.items() if len(value) == count}
    if not lists:
        return {}
    kinds = list(zip(*lists.values(), strict=True))
    first = sorted({kinds.index(kind) for kind in kinds})[:MOST_BLOCKS]
    chosen = first if len(first) >= BLOCKS else [*first, *(index for index in range(count) if index not in first)][:BLOCKS]
    return {"num_hidden_layers": len(chosen)} | {
        name: [SIZES.get(name, value[i]) for i in chosen] for name, value in lists.items()
    }
