"""A model that trains only the last layers of both towers."""

from typing import Any

from mmpt.models import MMFusionSeparate


class LastLayersFusion(MMFusionSeparate):
    """VideoCLIP's model with all parameters frozen except those in the last layer of each tower."""

    @classmethod
    def from_config(cls, *args: Any, **kwargs: Any) -> "LastLayersFusion":
        """Builds the model that a YAML describes, and freezes its first layers."""
        model = super().from_config(*args, **kwargs)
        assert isinstance(model, cls)
        trained = set()
        for bert in (model.video_encoder.bert, model.text_encoder):
            trained.update(bert.encoder.layer[-1].parameters())
        for parameter in model.parameters():
            parameter.requires_grad_(parameter in trained)
        return model
