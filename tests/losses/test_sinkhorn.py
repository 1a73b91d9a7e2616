"""Transport plans against the textbook form of Sinkhorn's algorithm in NumPy."""

import math

import numpy as np
import pytest
import torch

from mmpt.losses.sinkhorn import bucket_transport, transport


def scaling(kernel: np.ndarray, mu: np.ndarray, nu: np.ndarray, iterations: int) -> np.ndarray:
    """Returns the plan of one matrix by Sinkhorn-Knopp scaling of exp(kernel)."""
    gibbs, b = np.exp(kernel), np.ones(len(nu))
    for _ in range(iterations):
        a = mu / (gibbs @ b)
        b = nu / (gibbs.T @ a)
    return a[:, None] * gibbs * b


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("m", "n", "iterations"), [(5, 5, 50), (3, 7, 50), (6, 2, 1), (1, 1, 4)])
def test_plain_transport_is_sinkhorn_knopp(m: int, n: int, iterations: int) -> None:
    similarity = random(2, 3, m, n)
    plans = transport(similarity, iterations, epsilon=0.1)
    for plan, matrix in zip(plans.flatten(0, 1), similarity.flatten(0, 1), strict=True):
        expected = m * scaling(
            matrix.numpy() / 0.1, np.full(m, 1 / m), np.full(n, 1 / n), iterations
        )
        np.testing.assert_allclose(plan.numpy(), expected, rtol=1e-10)  # measured: 5e-14


@pytest.mark.parametrize(("m", "n", "iterations"), [(8, 8, 50), (4, 6, 50), (5, 2, 1)])
def test_bucket_transport_is_sinkhorn_knopp_of_the_padded_matrix(
    m: int, n: int, iterations: int
) -> None:
    similarity, rho = random(3, m, n, seed=1), torch.tensor(0.4, dtype=torch.float64)
    plans = bucket_transport(similarity, rho, iterations, epsilon=0.1)
    mu, nu = np.append(np.ones(m), n) / (m + n), np.append(np.ones(n), m) / (m + n)
    for plan, matrix in zip(plans, similarity, strict=True):
        padded = np.pad(matrix.numpy(), ((0, 1), (0, 1)), constant_values=0.4)
        expected = (m + n) * scaling(padded / 0.1, mu, nu, iterations)[:m, :n]
        np.testing.assert_allclose(plan.numpy(), expected, rtol=1e-10)  # measured: 5e-14


@pytest.mark.parametrize("iterations", [1, 2, 5, 6, 50])
@pytest.mark.parametrize(("spread", "bound"), [(1.0, 1e-6), (30.0, 1e-5), (1000.0, 3e-4)])
def test_float32_equals_log_domain_updates_in_float64(
    spread: float, bound: float, iterations: int
) -> None:
    """The exponentials of the kernel are far outside the range of float32. The kernel also has a
    row with only small entries and a column with only large ones.
    """
    kernel = spread * (random(2, 40, 30, seed=3) - 0.5)
    kernel[:, 7] -= spread
    kernel[:, :, 11] += spread
    u, v = np.zeros((2, 40)), np.zeros((2, 30))
    for _ in range(iterations):
        u = -math.log(40) - np.logaddexp.reduce(kernel.numpy() + v[:, None], axis=2)
        v = -math.log(30) - np.logaddexp.reduce(kernel.numpy() + u[:, :, None], axis=1)
    expected = 40 * np.exp(kernel.numpy() + u[:, :, None] + v[:, None])
    plan = transport(kernel.float(), iterations).double().numpy()
    # Measured: 5e-8, 2e-6, 6e-5: kernels are rounded.
    np.testing.assert_allclose(plan, expected, rtol=0, atol=bound)
    # Measured: 1e-13.
    np.testing.assert_allclose(transport(kernel, iterations).numpy(), expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    similarity = (300 * random(16, 16)).to(dtype)  # exp of it overflows every type but float64
    plan = transport(similarity, 50)
    assert plan.dtype == torch.float32
    # Measured: 6e-6.
    np.testing.assert_allclose(plan, transport(similarity.double(), 50), atol=1e-4)
    assert bucket_transport(similarity, similarity[0, 0], 50).dtype == torch.float32


def test_plan_has_no_gradient() -> None:
    similarity = random(4, 4).requires_grad_()
    assert not transport(similarity, 3).requires_grad
    assert not bucket_transport(similarity, similarity[0, 0], 3).requires_grad
