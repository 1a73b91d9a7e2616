"""Selects the parameters that are trained. The Norton recipe trains LayerNorm parameters only."""

from torch import nn

from mmpt.errors import ConfigError


def freeze_all_but_layernorm(model: nn.Module) -> list[str]:
    """Freezes every parameter whose module is not called exactly `LayerNorm`.

    The name decides, not the class. It is the second-to-last part of the parameter's dotted name.
    For Norton, 78 tensors with 59,904 numbers stay trainable, including the norm of the video
    token MLP. Frozen layers keep their dropout.

    Returns:
        The names of the trainable parameters, in the model's order.
    Raises:
        ConfigError: no parameter would be trainable.
    """
    trainable = []
    for name, parameter in model.named_parameters():
        if name.split(".")[-2:-1] != ["LayerNorm"]:
            parameter.requires_grad_(False)
        elif parameter.requires_grad:
            trainable.append(name)
    if not trainable:
        problem = (
            f"the model {type(model).__name__} must have modules named `LayerNorm`, but has none; "
            "leave the key out."
        )
        raise ConfigError("model.layernorm_only", [problem])
    return trainable
