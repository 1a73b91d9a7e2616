"""`model.compile`: compiles parts of BERT's layers with torch.compile.

The compiled parts are those around attention (projection, GELU, dropout, residual sum, LayerNorm).
They process each token separately, so the number of tokens is their only changing size. One graph
with a symbolic size serves every batch, packed or padded, and every layer of both towers.
Attention itself is not compiled, because its groups differ in each batch.

State-dict keys do not change. Values equal those without compilation to rounding. Dropout draws
its masks in another order: a seed gives other masks, but the same ones in every run.
"""

import torch
from torch import nn
from transformers.models.bert.modeling_bert import (
    BertIntermediate,
    BertOutput,
    BertSelfOutput,
)

from mmpt.config import RunConfig
from mmpt.errors import ConfigError, first_line
from mmpt.utils.log import get_logger

logger = get_logger(__name__)
TOKEN_WISE = (BertSelfOutput, BertIntermediate, BertOutput)
"""Classes of the compiled parts."""


def compile_layers(model: nn.Module, device: torch.device) -> int:
    """Marks the token-wise parts of the model's BERT layers for compilation at their first call.

    Args:
        model: changed in place.
        device: where the model will run. A small function is compiled for it as a test.
    Returns:
        The number of parts.
    Raises:
        ConfigError: no compiler is found, or the model has no such parts.
    """
    parts = [module for module in model.modules() if isinstance(module, TOKEN_WISE)]
    if not parts:
        raise _requirement_error(
            f"a model of BERT layers, but {type(model).__name__} has none. Leave the key out."
        )
    check_compiler(device)
    for part in parts:
        part.compile(dynamic=True)
    logger.info(
        "compiling %d parts of BERT's layers; the first batches take longer", len(parts)
    )
    return len(parts)


def check_compiler(device: torch.device) -> None:
    """Raises ConfigError if torch cannot compile for `device`."""
    trial = torch.compile(
        lambda values: values.sin() + 1, dynamic=True, options={"fx_graph_cache": False}
    )
    try:
        trial(torch.ones(3, device=device))
    except RuntimeError as err:
        # All errors of torch.compile, including those that it wraps.
        reason = first_line(err)
        raise _requirement_error(
            "a C++ compiler (on a GPU Triton and a C compiler with Python's headers), but torch "
            f"cannot compile here: {reason}. "
            "Install one (Debian, Ubuntu: `apt install g++ python3-dev`), name it in the "
            "environment variable CXX (CC for Triton), or leave the key out; it only changes the "
            "speed."
        ) from err


def training_device(config: RunConfig) -> torch.device:
    """Returns the kind of device on which a run trains."""
    asks_for_cpu = config.option("common", "cpu", False)
    if asks_for_cpu or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


def _requirement_error(requirement: str) -> ConfigError:
    return ConfigError("model", [f"`model.compile: true` needs {requirement}"])
