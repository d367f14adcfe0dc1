"""CLIP's and BLIP's towers in plain torch, straight from tensors under their authors' names.

The reference that transformers' classes, filled by our converters, are compared with.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, layer_norm, linear, scaled_dot_product_attention

LAYERS = 2
"""Of every tower that the tests build."""
Tensors = Mapping[str, Tensor]


def norm(x: Tensor, tensors: Tensors, name: str, eps: float) -> Tensor:
    weight = tensors[f"{name}.weight"]
    return layer_norm(x, weight.shape, weight, tensors[f"{name}.bias"], eps)


def dense(x: Tensor, tensors: Tensors, name: str) -> Tensor:
    return linear(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"])


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """(L, D) from queries (L, D), keys and values (M, D), each cut into heads."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(0, 1)[None] for x in (q, k, v))
    return scaled_dot_product_attention(q, k, v, attn_mask=mask)[0].transpose(0, 1).flatten(1)


def patches_of(pixels_3HW: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(patches, D), row by row."""
    return conv2d(pixels_3HW[None], weight, bias, stride=weight.shape[-1])[0].flatten(1).T


def open_clip_layers(x: Tensor, tensors: Tensors, prefix: str, heads: int, causal: bool) -> Tensor:
    mask = torch.ones(len(x), len(x)).tril().bool() if causal else None
    for number in range(LAYERS):
        name = f"{prefix}.resblocks.{number}"
        inner = norm(x, tensors, f"{name}.ln_1", 1e-5)
        weight, bias = (tensors[f"{name}.attn.in_proj_{part}"] for part in ("weight", "bias"))
        q, k, v = linear(inner, weight, bias).chunk(3, dim=-1)
        x = x + dense(attend(q, k, v, heads, mask), tensors, f"{name}.attn.out_proj")
        inner = gelu(dense(norm(x, tensors, f"{name}.ln_2", 1e-5), tensors, f"{name}.mlp.c_fc"))
        x = x + dense(inner, tensors, f"{name}.mlp.c_proj")
    return x


def open_clip_image(pixels_3HW: Tensor, tensors: Tensors, heads: int) -> Tensor:
    """The image embedding (D,), length 1."""
    patches = patches_of(pixels_3HW, tensors["visual.conv1.weight"])
    x = torch.cat([tensors["visual.class_embedding"][None], patches])
    x = norm(x + tensors["visual.positional_embedding"], tensors, "visual.ln_pre", 1e-5)
    x = open_clip_layers(x, tensors, "visual.transformer", heads, causal=False)
    embedding = norm(x[0], tensors, "visual.ln_post", 1e-5) @ tensors["visual.proj"]
    return embedding / embedding.norm()


def open_clip_text(tokens_L: Tensor, tensors: Tensors, heads: int) -> Tensor:
    """The text embedding (D,), length 1; the last token is the end of the text."""
    x = tensors["token_embedding.weight"][tokens_L]
    x = x + tensors["positional_embedding"][: len(tokens_L)]
    x = open_clip_layers(x, tensors, "transformer", heads, causal=True)
    embedding = norm(x[-1], tensors, "ln_final", 1e-5) @ tensors["text_projection"]
    return embedding / embedding.norm()


def blip_image(pixels_3HW: Tensor, tensors: Tensors, heads: int) -> Tensor:
    """States (1 + patches, D) of ImageReward's `blip.visual_encoder`."""
    top = "blip.visual_encoder"
    projection = [tensors[f"{top}.patch_embed.proj.{part}"] for part in ("weight", "bias")]
    x = torch.cat([tensors[f"{top}.cls_token"][0], patches_of(pixels_3HW, *projection)])
    x = x + tensors[f"{top}.pos_embed"][0]
    for number in range(LAYERS):
        name = f"{top}.blocks.{number}"
        inner = norm(x, tensors, f"{name}.norm1", 1e-6)
        q, k, v = dense(inner, tensors, f"{name}.attn.qkv").chunk(3, dim=-1)
        x = x + dense(attend(q, k, v, heads), tensors, f"{name}.attn.proj")
        inner = gelu(dense(norm(x, tensors, f"{name}.norm2", 1e-6), tensors, f"{name}.mlp.fc1"))
        x = x + dense(inner, tensors, f"{name}.mlp.fc2")
    return norm(x, tensors, f"{top}.norm", 1e-6)


def blip_text(tokens_L: Tensor, seen: Tensor, tensors: Tensors, heads: int) -> Tensor:
    """States (L, D) of ImageReward's `blip.text_encoder` looking at the image's states."""
    top = "blip.text_encoder"
    x = tensors[f"{top}.embeddings.word_embeddings.weight"][tokens_L]
    x = x + tensors[f"{top}.embeddings.position_embeddings.weight"][: len(tokens_L)]
    x = norm(x, tensors, f"{top}.embeddings.LayerNorm", 1e-12)
    for number in range(LAYERS):
        name = f"{top}.encoder.layer.{number}"
        for part, others in (("attention", None), ("crossattention", seen)):
            other = x if others is None else others
            q = dense(x, tensors, f"{name}.{part}.self.query")
            k = dense(other, tensors, f"{name}.{part}.self.key")
            v = dense(other, tensors, f"{name}.{part}.self.value")
            inner = dense(attend(q, k, v, heads), tensors, f"{name}.{part}.output.dense")
            x = norm(x + inner, tensors, f"{name}.{part}.output.LayerNorm", 1e-12)
        inner = gelu(dense(x, tensors, f"{name}.intermediate.dense"))
        inner = dense(inner, tensors, f"{name}.output.dense")
        x = norm(x + inner, tensors, f"{name}.output.LayerNorm", 1e-12)
    return x
