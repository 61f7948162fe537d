"""Which options of models of transformers and open_clip a description may set.

As in `zoo.nets.timm_options`: descriptions come with files of other people, and these
libraries take, beside sizes, names of models, hubs and kernels that they would fetch.
Imports neither of them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from zoo.errors import UserError, nearest

RESIZE = frozenset({"resize", "resample"})


@dataclass(frozen=True)
class Kind:
    """One type of model of transformers."""

    model: str
    """Its class."""
    pooled: bool = True
    """Features are what its pooler gives; otherwise the class token of the last layer,
    and the class is built without pooler."""


KINDS = {
    "vit": Kind("ViTModel", pooled=False),
    "deit": Kind("DeiTModel", pooled=False),
    "dinov2": Kind("Dinov2Model"),
    "dinov2_with_registers": Kind("Dinov2WithRegistersModel"),
    "dinov3_vit": Kind("DINOv3ViTModel"),
    "dinov3_convnext": Kind("DINOv3ConvNextModel"),
    "convnext": Kind("ConvNextModel"),
    "convnextv2": Kind("ConvNextV2Model"),
    "swin": Kind("SwinModel"),
    "resnet": Kind("ResNetModel"),
    "clip_vision_model": Kind("CLIPVisionModel"),
    "siglip_vision_model": Kind("SiglipVisionModel"),
}
TRANSFORMERS = RESIZE | {
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob"),
    *("attention_dropout", "drop_path_rate", "layer_norm_eps", "image_size"),
    *("patch_size", "qkv_bias", "mlp_ratio", "layerscale_value", "use_swiglu_ffn"),
    *("use_mask_token", "num_register_tokens", "query_bias", "key_bias"),
    *("value_bias", "proj_bias", "mlp_bias", "use_gated_mlp", "rope_theta"),
    *("pos_embed_rescale", "num_stages", "hidden_sizes", "depths"),
    *("layer_scale_init_value", "embed_dim", "num_heads", "window_size"),
    *("use_absolute_embeddings", "embedding_size", "layer_type"),
    *("downsample_in_first_stage", "downsample_in_bottleneck", "projection_dim"),
    "vision_use_head",
}
WITHOUT_EFFECT = frozenset(
    {
        *("model_type", "architectures", "transformers_version", "dtype"),
        *("torch_dtype", "id2label", "label2id", "problem_type", "return_dict"),
        *("output_hidden_states", "output_attentions", "is_encoder_decoder"),
        *("chunk_size_feed_forward", "initializer_range", "initializer_factor"),
        *("encoder_stride", "pooler_output_size", "pooler_act", "num_channels"),
        *("stage_names", "out_features", "out_indices", "apply_layernorm"),
        *("reshape_hidden_states", "num_layers", "pos_embed_shift"),
        *("pos_embed_jitter", "_name_or_path"),
    }
)
"""On the features in eval mode."""
OPEN_CLIP = RESIZE | {
    *("embed_dim", "quick_gelu", "layers", "width", "head_width", "mlp_ratio"),
    *("patch_size", "image_size", "ls_init_value", "patch_dropout"),
    *("attentional_pool", "attn_pooler_queries", "attn_pooler_heads", "no_ln_pre"),
    *("pos_embed_type", "final_ln_after_pool", "pool_type", "timm_model_name"),
    *("timm_pool", "timm_proj", "timm_proj_bias", "timm_drop", "timm_drop_path"),
}


def check_options(options: Collection[str], known: Collection[str], what: str) -> None:
    """Raises `UserError` for an option that is not on the list."""
    for key in options:
        if key not in known:
            raise UserError(
                f"'{key}' is no option of {what} that robrep passes on; "
                f"{nearest(key, known)}"
            )


def check_kind(name: str) -> Kind:
    """The type of that name; raises `UserError` with the nearest."""
    try:
        return KINDS[name]
    except KeyError:
        raise UserError(
            f"robrep takes no features from '{name}' of transformers; "
            f"{nearest(name, KINDS)}"
        ) from None
