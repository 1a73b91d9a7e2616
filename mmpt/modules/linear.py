"""Linear layers whose float32 products on a CPU are oneDNN's (see `mmpt.utils.products`), forward and backward.

oneDNN makes a kernel for every shape that it meets and keeps it (1 ms and some 0.7 MB), and the number of tokens is
another in every step. So tokens are cut in blocks of `BLOCK`, and the last block is filled up to a multiple of `GRAIN`;
a layer meets at most 8 shapes in each direction: some 60 kernels and 40 MB for BERT-base with frozen weights. The
copies that this takes are hot in the cache.

The products are custom operations: torch.compile takes them as they are, and autograd keeps for a frozen weight nothing
but the weight. Everything else (other types and devices, autocast, few tokens) is left to torch.

Measured on one core of an AMD EPYC with AVX-512 (family 26) alone: 200 to 220 GFLOP/s at BERT-base's sizes, MKL 100.

Legend: R tokens, K inputs, N outputs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from mmpt.utils.products import has_onednn, product

BLOCK, GRAIN = 512, 64
"""Tokens of a product, and of what number theirs is a multiple."""
LEAST_INPUTS = 1 << 16
"""Numbers that a layer must read for the detour to pay: 85 tokens of BERT-base."""


class Linear(nn.Linear):
    """A linear layer as torch's, on a CPU in float32 by oneDNN."""

    def forward(self, input: Tensor) -> Tensor:
        """Return input @ weight^T + bias, [..., N], of input [..., K]."""
        by_onednn = input.device.type == "cpu" and input.dtype == self.weight.dtype == torch.float32
        if not by_onednn or torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        if not torch.compiler.is_compiling() and input.numel() < LEAST_INPUTS:  # one graph serves every size
            return super().forward(input)
        return _linear(input, self.weight, self.bias)


def use_onednn(model: nn.Module) -> None:
    """Make the linear layers of `model` multiply by oneDNN where torch has it; parameters and state keys stay."""
    if has_onednn():
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = Linear


def _blocks(values: Tensor) -> Iterator[Tensor]:
    """Yield the rows of values [..., K] in blocks, zeros at the end of the last."""
    for block_RK in values.reshape(-1, values.shape[-1]).contiguous().split(BLOCK):
        missing = -len(block_RK) % GRAIN
        yield nn.functional.pad(block_RK, (0, 0, 0, missing)) if missing else block_RK


@torch.library.custom_op("mmpt::linear", mutates_args=())
def _linear(input: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
    result = input.new_empty(*input.shape[:-1], len(weight_NK))
    for rows_RN, block_RK in zip(result.view(-1, len(weight_NK)).split(BLOCK), _blocks(input), strict=True):
        rows_RN.copy_(product(block_RK, weight_NK, bias_N)[: len(rows_RN)])
    return result


@torch.library.custom_op("mmpt::linear_weight_gradient", mutates_args=())
def _weight_gradient(grad: Tensor, input: Tensor) -> Tensor:
    total_NK = grad.new_zeros(grad.shape[-1], input.shape[-1])
    for grad_RN, input_RK in zip(_blocks(grad), _blocks(input), strict=True):
        total_NK += product(grad_RN.T, input_RK.T)
    return total_NK


@_linear.register_fake
def _(input: Tensor, weight_NK: Tensor, bias_N: Tensor | None) -> Tensor:
    return input.new_empty(*input.shape[:-1], len(weight_NK))


@_weight_gradient.register_fake
def _(grad: Tensor, input: Tensor) -> Tensor:
    return grad.new_empty(grad.shape[-1], input.shape[-1])


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
    input, weight_NK, _ = inputs
    ctx.save_for_backward(input if ctx.needs_input_grad[1] else None, weight_NK if ctx.needs_input_grad[0] else None)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    input, weight_NK = ctx.saved_tensors
    return (
        _linear(grad, weight_NK.t(), None) if ctx.needs_input_grad[0] else None,
        _weight_gradient(grad, input) if ctx.needs_input_grad[1] else None,
        grad.flatten(0, -2).sum(0) if ctx.needs_input_grad[2] else None,
    )


_linear.register_autograd(_backward, setup_context=_keep)
