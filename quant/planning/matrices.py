"""What a matrix of an unknown model is, judged by its name.

Only what ComfyUI loads into its own Linear may be quantized. Where the modules of a model are not
known, a matrix that may be something else is left alone: a layer in 16 bits costs a little space,
and a matrix that nobody decodes gives noise.
"""

from __future__ import annotations

import re

from .layers import Kind

# Weights that are read by row look-up, not by a product. All other matrices with such names, for
# example text_embedding.0, are Linear layers.
_LOOKUP_TABLES = re.compile(
    r"(^|\.)(embed_tokens|embed_tokens_per_layer|shared|wte|wpe|\w*embeddings?|"
    r"relative_attention_bias|label_emb(edding)?_table|embedding_table)$"
)
# Bare parameters that models store under these names.
_PARAMETERS = re.compile(
    r"(^|\.)(\w*pos(itional)?_(embed|embedding|encoding|emb)s?|positional_encoding|"
    r"\w*query_embeds?|\w*_tokens?|\w*_table|\w*_queries|\w*memory_tokens|\w*codebook\w*|"
    r"\w*embed_indicator|\w*_basis|inv_freqs?|lora_\w+|prototypes?)$"
)
# Routers of mixtures of experts: one row per expert and no bias. Gates of a feed-forward layer
# have as many rows as it is wide.
_ROUTERS = re.compile(r"(^|\.)(\w*gate|\w*router\w*|gating|wg|switch|expert_\w*)$")
_MOST_EXPERTS = 512
# What Stable Audio's files hold beside the model. ComfyUI loads it into torch's own Linear.
_BESIDE = "conditioner."


def kind_by_name(name: str, shape: tuple[int, ...], has_bias: bool) -> Kind:
    """Return the kind of a 2-D weight of a layer."""
    if name.startswith(_BESIDE):
        return "parameter"
    if _LOOKUP_TABLES.search(name):
        return "embedding"
    if not has_bias and (_PARAMETERS.search(name) or _is_router(name, shape)):
        return "parameter"
    return "linear"


def _is_router(name: str, shape: tuple[int, ...]) -> bool:
    rows, columns = shape
    return bool(_ROUTERS.search(name)) and rows <= _MOST_EXPERTS and 4 * rows <= columns
