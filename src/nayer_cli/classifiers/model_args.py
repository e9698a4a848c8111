"""Check the `model_args` of somebody else's config.json, which may shape a network and nothing else.

timm hands every keyword that it does not know on to a constructor, and keeps some for itself: `cache_dir`,
`checkpoint_path`, `pretrained_cfg_overlay` and their like name files, folders and addresses. So only names of this
list pass, each with a number, a word, or a list of these.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nayer_cli.errors import InputError, did_you_mean
from nayer_cli.storage.text import printable

LARGEST_NUMBER = 1_000_000
MOST_ITEMS = 1_000
"""Numbers and words in one argument, lists inside lists counted."""
DEEPEST = 4
"""Lists around a number."""
WORD = re.compile(r"[A-Za-z0-9_+.-]{0,40}")
"""Names of layers and of kinds of pooling; neither a path nor an address is one."""
HARMLESS = ("pretrained", "features_only", "pruned", "scriptable", "exportable", "no_jit")
"""Switches of timm that some tools write down; switched off they say nothing, so they are left out."""

SHAPING = frozenset(
    """
    aa_layer aa_stem_only abs_win_pos_embed act_layer always_partition attn attn_act_layer attn_drop attn_drop_rate
    attn_groups attn_head_dim_reduction attn_layer attn_mlp attn_mlp_ratio attn_only_layer_scale attn_pool_mlp_ratio
    attn_pool_num_heads attn_ratio attn_stage attn_type attn_types attn_upsample aux_logits avg_down b base_dim
    base_dims base_width basic bidirectional block_config block_reduce_first block_type blocks bn_eps bn_momentum
    bn_size bn_tf bottle_ratio bottleneck_width_ratio cardinality ch_div channel_attention channel_attn_v2
    channel_multiplier channels class_token cls_attn_layers cls_ratio conv_bias conv_init conv_mlp conv_ratio
    cpe_act crop_scale crpe_window d2_scales deepen_factor depth depth_list depth_mult depth_multiplier
    depth_token_only depths dilation dim dim_mul dims distillation distilled down_kernel_size down_op down_ops
    down_pad down_patch_size down_stride downsample downsample_block downsample_expand_ratios downsample_kernel_size
    downsample_padding downsample_ratio downsamples drop_block drop_block_rate drop_block_size drop_path
    drop_path_rate drop_rate dw_act_layer dynamic_img_pad dynamic_img_size embed_dim embed_dims embed_norm
    embed_norm_layer encoder_pool eta expand_groups expand_ratio extra_norm_period extra_norm_stage fc_act_layer
    fc_norm ffn ffn_ratio final_chs final_norm first_dilation first_stride fix_init fix_stem focal_levels
    focal_windows fused_conv fused_downsample global_attn_indexes global_block_counts global_pool global_pos_size
    group groups growth_rate growth_rates head head_bias head_dim head_hidden_size head_init_scale head_mul
    head_norm head_norm_first head_widths heads hidden_sizes img_scale img_size in_chans inc_sec init_channels
    init_values initial_chs inner_dim inplanes input_3x3 intermediate_size is_downsample_block k_r k_sec kernel_size
    kernel_sizes kernels key_dim layer_scale layer_scale_init_value layer_scale_init_values layers layerscale_value
    legacy linear lkc_use_act local_conv_size local_mbconv_norm local_up_to_layer locality_strength ls_init_value
    mask_unit_attn mask_unit_size mbconv_expand_ratio merge_size mix_block_ratio mlp_bias mlp_ratio
    mlp_ratio_token_only mlp_ratios msfa_indices msfa_output_resolution multi_conv n_div named_blocks neck_chans
    nlhb no_embed_class norm_eps norm_layer norm_layer_cl normalize_modulator num_blocks num_blocks_list num_classes
    num_features num_heads num_heads_inner num_heads_outer num_init_features num_kv_heads num_levels
    num_prefix_tokens num_reg_tokens num_rnn_layers num_vit out_features outlook_attention output_stride pad_type
    parallel_depth partial_dim patch_drop_rate patch_kernel patch_norm patch_padding patch_size patch_sizes
    patch_stride pconv_fw_type pool_include_prefix pool_size pooling_kernel_size pooling_scale pos_drop_rate
    pos_embed pos_embed_grid_size pos_embs position_embedding_size post_layers pre_norm preact
    pretrained_window_sizes proj_bias proj_drop proj_drop_rate projection q_pool q_stride qk_dim qk_norm qkv_bias
    qkv_fused rd_ratio reduce_first ref_feat_shape reg_tokens rel_pos_dim rel_pos_type reparam replace_stem_pool
    repmixer_kernel_size res_scale_init_values rope_grid_indexing rope_grid_offset rope_jitter_coords
    rope_mrope_section rope_rescale_coords rope_rotate_half rope_shift_coords rope_temperature rope_theta rope_type
    scale scale_attn_inner scale_attn_norm scale_mlp scale_mlp_norm se_downsamples se_from_exp se_layer se_ratio
    sep_pos_embed seq_len sequential_attn serial_depths shared_rel_pos shortcut_root small small_kernels
    spatial_conv sr_ratios ssd_expand stages standardize state_dim stem_bias stem_chs stem_expand_ratio
    stem_hidden_dim stem_kernel_size stem_norm stem_size stem_stride stem_type stem_use_scale_branch stem_width
    strict_img_size stride strides swiglu_align_to swiglu_mlp token_mixers tokens_norm transformer_depths
    transformer_drop_path transition_compression_ratio types union use_abs_pos use_abs_pos_emb use_aux_head
    use_clipped_linears use_conv use_expand_proj use_fc_norm use_grn use_lab use_layer_scale use_mix_token
    use_mlp_head use_msfa use_overlap_down use_pos_emb use_pos_embed use_post_norm use_post_norm_in_modulation
    use_post_transformer_norm use_pre_transformer_norm use_rel_pos use_rel_pos_bias use_rope use_rot_pos_emb
    use_shared_rel_pos_bias v2 version vit_stem weight_init widen_factor width width_factor width_list width_mult
    widths window_ratio window_size window_sizes with_fc wss zero_init_last
""".split()  # noqa: SIM905 - three hundred quoted names are harder to read
)
"""Parameters of the constructors of timm's classifiers and of ours that are numbers, words, or lists of these."""


def read_model_args(arguments: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return the arguments that shape a network; those that are null, or switches that are off, are left out.

    Raises:
        InputError: there is one of another name or of another kind.

    """
    kept = {name: value for name, value in arguments.items() if value is not None}
    kept = {name: value for name, value in kept.items() if not (name in HARMLESS and value is False)}
    for name, value in kept.items():
        if name not in SHAPING:
            raise InputError(
                f"model_args of {path} has '{printable(name)}', which does not shape a network"
                f"{did_you_mean(name, SHAPING)}",
                hint="remove it if the network does not need it: a model's file may not name other files, folders or"
                " addresses",
            )
        if not _is_plain(value, DEEPEST) or _count(value) > MOST_ITEMS:
            raise InputError(
                f"model_args of {path}: {name} must be a number up to {LARGEST_NUMBER:,}, a word, or a list of these, "
                f"not {printable(repr(value))}",
                hint="remove it if the network does not need it",
            )
    return kept


def _is_plain(value: object, depth: int) -> bool:
    if isinstance(value, list):
        return depth > 0 and all(_is_plain(item, depth - 1) for item in value)
    if isinstance(value, str):
        return WORD.fullmatch(value) is not None
    if isinstance(value, (bool, type(None))):
        return True
    return isinstance(value, (int, float)) and abs(value) <= LARGEST_NUMBER and math.isfinite(value)


def _count(value: object) -> int:
    return sum(map(_count, value)) if isinstance(value, list) else 1
