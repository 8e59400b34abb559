"""Scaled dot-product attention by each of its implementations."""

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from groups.blas import normal
from registry import check


def attend(backend, dtype, device, **options):
    """Output and gradients by one implementation."""
    query, key, value = (normal(2, 4, 128, 64, dtype=dtype, device=device).requires_grad_() for _ in range(3))
    with sdpa_kernel(backend):
        out = F.scaled_dot_product_attention(query, key, value, **options)
        out.float().square().mean().backward()
    return {"output": out, "query": query.grad, "key": key.grad, "value": value.grad}


@check
def attention_flash_float16(device):
    return attend(SDPBackend.FLASH_ATTENTION, torch.float16, device, is_causal=True)


@check
def attention_flash_bfloat16(device):
    return attend(SDPBackend.FLASH_ATTENTION, torch.bfloat16, device)


@check
def attention_efficient(device):
    mask = torch.zeros(128, 128, device=device).masked_fill(torch.rand(128, 128).to(device) < 0.2, float("-inf"))
    return attend(SDPBackend.EFFICIENT_ATTENTION, torch.float32, device, attn_mask=mask)


@check
def attention_efficient_float16(device):
    return attend(SDPBackend.EFFICIENT_ATTENTION, torch.float16, device, is_causal=True)


@check(cpu=True)
def attention_math(device):
    return attend(SDPBackend.MATH, torch.float32, device, is_causal=True)


@check
def attention_cudnn(device):
    return attend(SDPBackend.CUDNN_ATTENTION, torch.bfloat16, device, is_causal=True)


@check
def attention_dropout(device):
    """The random numbers are drawn in the kernel."""
    return attend(SDPBackend.FLASH_ATTENTION, torch.float16, device, dropout_p=0.25)


@check
def attention_grouped(device):
    """Fewer keys than queries."""
    query, key, value = normal(1, 8, 64, 64), normal(1, 2, 64, 64), normal(1, 2, 64, 64)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        given = (part.to(torch.bfloat16) for part in (query, key, value))
        return {"output": F.scaled_dot_product_attention(*given, enable_gqa=True)}


@check(cpu=True)
def attention_layer(device):
    layer = torch.nn.MultiheadAttention(64, 4, batch_first=True).to(device)
    given = normal(3, 40, 64, device=device)
    out, weights = layer(given, given, given)
    encoder = torch.nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, dropout=0.0).to(device).eval()
    with torch.inference_mode():
        fast = encoder(given)
    return {"output": out, "weights": weights, "encoder": fast}
