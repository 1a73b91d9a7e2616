"""Which parameters train: the Norton recipe moves LayerNorm only, and tells it by the module's
name.
"""

from torch import nn

from mmpt.errors import ConfigError


def freeze_all_but_layernorm(model: nn.Module) -> list[str]:
    """Stop the gradient of every parameter whose owning module is not called exactly `LayerNorm`.

    The name decides, not the class: it is the second-last part of the parameter's dotted name. For
    Norton that leaves 78 tensors of 59,904 numbers, the norm of the video token MLP among them.
    Frozen layers keep their dropout.

    Returns:
        The names of the parameters that still train, in the model's order.
    Raises:
        ConfigError: nothing would train.
    """
    trainable = []
    for name, parameter in model.named_parameters():
        if name.split(".")[-2:-1] != ["LayerNorm"]:
            parameter.requires_grad_(False)
        elif parameter.requires_grad:
            trainable.append(name)
    if not trainable:
        has_none = (
            f"the model {type(model).__name__} must have modules named `LayerNorm`, but has none"
        )
        raise ConfigError("model.layernorm_only", [f"{has_none}; leave the key out."])
    return trainable
