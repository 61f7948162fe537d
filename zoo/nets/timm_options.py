"""Which options of a timm model a description may set. Imports neither torch nor timm.

`timm.create_model` takes, beside what the architecture itself takes, names of files
and hubs that it then reads (`checkpoint_path`, `pretrained_cfg`, `cache_dir`, ...), and
it unpickles what it finds there. Descriptions come with files of other people, so the
options below are passed on and no others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from zoo.errors import UserError, nearest

NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)?", re.IGNORECASE)
"""ARCHITECTURE or ARCHITECTURE.TAG: no hub, no folder, no address."""
SIZES = (
    *("resize", "img_size", "patch_size", "window_size", "embed_dim", "embed_dims"),
    *("dims", "depth", "depths", "layers", "channels", "widths", "num_heads"),
    *("head_dim", "mlp_ratio", "mlp_ratios", "num_features", "head_hidden_size"),
    *("kernel_size", "kernel_sizes", "output_stride", "stem_width", "stem_size"),
    *("stem_chs", "base_width", "cardinality", "groups", "growth_rate", "bn_size"),
    *("block_config", "num_init_features", "block_reduce_first", "reg_tokens"),
    *("sr_ratios", "expand_ratio", "width_factor", "strides", "patch_sizes"),
)
SWITCHES = (
    *("qkv_bias", "qk_norm", "conv_bias", "conv_mlp", "use_grn", "class_token"),
    *("no_embed_class", "use_pos_embed", "pre_norm", "fc_norm", "head_norm_first"),
    *("avg_down", "replace_stem_pool", "strict_img_size", "dynamic_img_size"),
    *("dynamic_img_pad", "always_partition", "distilled", "zero_init_last"),
)
RATES = (
    *("drop_rate", "drop_path_rate", "proj_drop_rate", "pos_drop_rate"),
    *("attn_drop_rate", "patch_drop_rate", "drop_block_rate", "norm_eps"),
    *("init_values", "ls_init_value", "layer_scale_init_value", "head_init_scale"),
)
CHOICES = (
    *("global_pool", "act_layer", "norm_layer", "stem_type", "pad_type"),
    "resample",
)
"""Words that timm looks up in tables of its own."""
NUMBERS = frozenset({*SIZES, *RATES})
"""True and false are none of them, which to Python they are."""
OPTIONS = frozenset({*SIZES, *SWITCHES, *RATES, *CHOICES})


def check_name(name: str) -> None:
    """Raises `UserError` unless `name` can only be a model of timm's own list."""
    if not NAME.fullmatch(name):
        raise UserError(
            f"'timm:{name}' is no name of a timm model; models of a hub or a folder "
            "are not built from here"
        )


def check_options(options: Iterable[str]) -> None:
    """Raises `UserError` for an option that is not the architecture's own."""
    for key in options:
        if key not in OPTIONS:
            raise UserError(
                f"'{key}' is no option of timm's architectures that robrep passes on; "
                f"{nearest(key, OPTIONS)}"
            )
