"""Names of models on the Hugging Face Hub, and paths."""

import pytest

from mmpt.utils.hub_names import is_hub_name


@pytest.mark.parametrize("name", ["gpt2", "openai/clip-vit-large-patch14", "a_b/c.d"])
def test_names_on_the_hub(name):
    assert is_hub_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "/models/clip", "./clip", "../clip", "~/clip", "a/b/c", "a/", "a\\b", "a b"],
)
def test_names_that_can_only_be_paths(name):
    assert not is_hub_name(name)
