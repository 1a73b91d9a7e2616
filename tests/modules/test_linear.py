"""Linear layers by oneDNN against float64 ones: values, gradients, what is stored, and where torch multiplies."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo import config as dynamo
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from mmpt.modules import linear, use_onednn
from mmpt.modules.linear import BLOCK, GRAIN, Linear
from mmpt.utils import products
from mmpt.utils.products import has_onednn

K, N = 96, 40
pytestmark = pytest.mark.skipif(not has_onednn(), reason="this build of torch has no oneDNN")


@pytest.fixture(autouse=True)
def every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "LEAST_INPUTS", 0)


class Calls(TorchDispatchMode):
    """Notes the names of the operations that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))

    def ours(self) -> list[str]:
        return [name.removesuffix(".default") for name in self.names if name.startswith("mmpt.")]


def layer(*, bias: bool = True, frozen: bool = False, inputs: int = K) -> Linear:
    torch.manual_seed(0)
    made = nn.Linear(inputs, N, bias=bias).requires_grad_(not frozen)
    use_onednn(made)
    assert type(made) is Linear
    return made


def exact(made: nn.Linear) -> nn.Linear:
    """The same layer in float64."""
    plain = nn.Linear(made.in_features, made.out_features, bias=made.bias is not None).double()
    plain.load_state_dict(made.state_dict())
    return plain.requires_grad_(made.weight.requires_grad)


def inputs() -> Iterator[Tensor]:
    """Inputs of every number of axes, filling blocks or not, in several layouts."""
    shapes = [(0, K), (1, K), (3, 0, K), (GRAIN, K), (BLOCK, K), (BLOCK + 1, K), (1, 2 * BLOCK + 77, K), (5, 3, 11, K)]
    yield from (torch.randn(shape, generator=torch.Generator().manual_seed(1)) for shape in shapes)
    wide = torch.randn(K + 3, 2, 150, generator=torch.Generator().manual_seed(1))
    yield wide[3:].permute(1, 2, 0)
    yield wide[0, :, :K].expand(4, 2, K)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_are_those_of_float64(bias: bool, frozen: bool) -> None:
    ours = layer(bias=bias, frozen=frozen)
    theirs = exact(ours)
    for each in inputs():
        x, wide = each.detach().requires_grad_(), each.double().detach().requires_grad_()
        with Calls() as calls:
            got, wanted = ours(x), theirs(wide)
            grad = torch.randn_like(wanted).float()
            got.backward(grad)
            wanted.backward(grad.double())
        backward = [] if frozen else ["mmpt.linear_weight_gradient"]
        assert sorted(calls.ours()) == ["mmpt.linear", "mmpt.linear", *backward]
        assert x.grad is not None
        assert got.shape == wanted.shape
        torch.testing.assert_close(got.double(), wanted, rtol=0, atol=3e-6)  # measured: 9.3e-7, as torch
        torch.testing.assert_close(x.grad.double(), wide.grad, rtol=0, atol=3e-6)  # measured: 4.9e-7, as torch
        for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert (own.grad is None) == (other.grad is None) == frozen
            if own.grad is not None:
                torch.testing.assert_close(own.grad.double(), other.grad, rtol=0, atol=3e-4)  # 7.7e-5; MKL 4.0e-5
            own.grad = other.grad = None


@pytest.mark.parametrize("frozen", [False, True])
def test_a_frozen_layer_stores_its_weight_only(frozen: bool) -> None:
    made, x = layer(frozen=frozen), torch.randn(200, K, requires_grad=True)
    stored: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        stored.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        made(x)
    assert set(stored) == {made.weight.data_ptr(), *([] if frozen else [x.data_ptr()])}


def test_a_layer_whose_input_needs_no_gradient_gives_none() -> None:
    made, x = layer(), torch.randn(200, K)
    with Calls() as calls:
        made(x).sum().backward()
    assert calls.ours() == ["mmpt.linear", "mmpt.linear_weight_gradient"]
    assert x.grad is None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradient(mode: Any) -> None:
    made, x = layer(), torch.randn(200, K)
    with mode():
        got = made(x)
    assert not got.requires_grad
    torch.testing.assert_close(got.double(), exact(made)(x.double()).detach(), rtol=0, atol=3e-6)


def test_checkpoints_compute_the_same_again() -> None:
    made, x = layer(), torch.randn(1500, K)
    gradients = []
    for run in (made, lambda x: checkpoint(made, x, use_reentrant=False)):
        start = x.clone().requires_grad_()
        run(start).square().sum().backward()
        gradients.append([start.grad, made.weight.grad, made.bias.grad])
        made.zero_grad()
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_other_types_autocast_and_few_tokens_are_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    made, x = layer(), torch.randn(70, K)
    with Calls() as calls:
        assert copy.deepcopy(made).double()(x.double()).dtype == torch.float64
        assert copy.deepcopy(made).bfloat16()(x.bfloat16()).dtype == torch.bfloat16
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert made(x).dtype == torch.bfloat16
        monkeypatch.setattr(linear, "LEAST_INPUTS", 70 * K + 1)
        made(x)
    assert calls.ours() == []


def test_copies_keys_and_weights_are_those_of_torch() -> None:
    made = layer()
    assert type(copy.deepcopy(made)) is Linear
    assert list(made.state_dict()) == ["weight", "bias"]
    exact(made)  # loads them


def test_without_onednn_layers_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: Any) -> Tensor:
        raise RuntimeError("not in this build")

    monkeypatch.setattr(products, "_by_onednn", missing)
    has_onednn.cache_clear()
    try:
        made = nn.Sequential(nn.Linear(K, N))
        use_onednn(made)
        assert type(made[0]) is nn.Linear
    finally:
        has_onednn.cache_clear()


def test_any_number_of_tokens_meets_few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN keeps a kernel for each."""
    shapes: set[tuple[torch.Size, torch.Size]] = set()

    def note(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
        shapes.add((a.shape, b.shape))
        return a.new_zeros(len(a), len(b))

    monkeypatch.setattr(linear, "product", note)
    made = layer()
    for tokens in torch.randint(1, 5000, (300,)).tolist():
        made(torch.zeros(tokens, K, requires_grad=True)).sum().backward()
    assert len(shapes) <= 3 * BLOCK // GRAIN  # forward, backward, the weight's gradient


def test_compiled_parts_use_it_too_and_compile_once() -> None:
    torch.compiler.reset()
    made = nn.Sequential(layer(), nn.GELU())
    compiled = torch.compile(copy.deepcopy(made), dynamic=True, backend="aot_eager")  # needs no C++ compiler
    for tokens in (100, 130, 1500, 90):
        x = torch.randn(1, tokens, K, requires_grad=True)
        wanted = made(x)
        with dynamo.patch(error_on_recompile=tokens != 100):
            got = compiled(x)
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6)
        gradients = [torch.autograd.grad(each.sum(), x)[0] for each in (got, wanted)]
        torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)
