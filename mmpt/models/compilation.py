"""`model.compile`: torch.compile for the parts of BERT's layers that treat tokens one by one, each
on its own.

These are what surrounds attention: projection, GELU, dropout, residual sum, LayerNorm. Their only
changing size is the number of tokens, so one graph with a symbolic size serves every batch, packed
or padded, and every layer of both towers; attention itself, whose runs differ in each batch, stays
eager. State-dict keys stay as they are. Values equal eager ones to rounding; dropout draws in
another order, so a seed gives other, equally repeatable draws.
"""

import torch
from torch import nn
from transformers.models.bert.modeling_bert import BertIntermediate, BertOutput, BertSelfOutput

from mmpt.errors import ConfigError
from mmpt.utils.log import get_logger

logger = get_logger(__name__)
TOKEN_WISE = (BertSelfOutput, BertIntermediate, BertOutput)


def compile_layers(model: nn.Module, device: torch.device) -> int:
    """Has the token-wise parts of the model's BERT layers compiled when they first run; return
    their number.

    Args:
        model: changed in place.
        device: where it is going to run; a trial shows whether torch can compile for it.
    Raises:
        ConfigError: no compiler, or a model without such parts.
    """
    parts = [module for module in model.modules() if isinstance(module, TOKEN_WISE)]
    if not parts:
        raise _refuse(
            f"a model of BERT layers, but {type(model).__name__} has none. Leave the key out."
        )
    is_launcher = next(parts[0].parameters()).is_meta  # which must not take a GPU's memory
    if device.type == "cpu" or not is_launcher:
        _try_compiler(device)
    for part in parts:
        part.compile(dynamic=True)
    logger.info("compiling %d parts of BERT's layers; the first batches take longer", len(parts))
    return len(parts)


def _try_compiler(device: torch.device) -> None:
    """Raises ConfigError unless torch can compile for `device`."""
    trial = torch.compile(
        lambda values: values.sin() + 1, dynamic=True, options={"fx_graph_cache": False}
    )
    try:
        trial(torch.ones(3, device=device))
    except RuntimeError as err:  # all of torch.compile's errors are, also those that it wraps
        raise _refuse(
            "a C++ compiler (on a GPU Triton and a C compiler with Python's headers), but torch "
            f"cannot compile here: {str(err).strip().splitlines()[0]}. "
            "Install one (Debian, Ubuntu: `apt install g++ python3-dev`), name it in the "
            "environment variable CXX (CC for Triton), or leave the key out; it only changes the "
            "speed."
        ) from err


def _refuse(needs: str) -> ConfigError:
    return ConfigError("model", [f"`model.compile: true` needs {needs}"])
