"""Transport plans against the textbook form of Sinkhorn's algorithm in NumPy."""

import math

import numpy as np
import pytest
import torch

from mmpt.losses.sinkhorn import bucket_transport, transport


def scaling(
    kernel: np.ndarray, mu: np.ndarray, nu: np.ndarray, iterations: int
) -> np.ndarray:
    """Returns the plan of one matrix by Sinkhorn-Knopp scaling of exp(kernel)."""
    gibbs = np.exp(kernel)
    b = np.ones(len(nu))
    for _ in range(iterations):
        a = mu / (gibbs @ b)
        b = nu / (gibbs.T @ a)
    return a[:, None] * gibbs * b


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(
    ("m", "n", "iterations"), [(5, 5, 50), (3, 7, 50), (6, 2, 1), (1, 1, 4)]
)
def test_plain_transport_is_sinkhorn_knopp(m: int, n: int, iterations: int) -> None:
    similarity = random(2, 3, m, n)
    plans = transport(similarity, iterations, epsilon=0.1)
    mu = np.full(m, 1 / m)
    nu = np.full(n, 1 / n)
    for index in np.ndindex(2, 3):
        kernel = similarity[index].numpy() / 0.1
        expected = m * scaling(kernel, mu, nu, iterations)
        # measured: 5e-14
        np.testing.assert_allclose(plans[index], expected, rtol=1e-10)


@pytest.mark.parametrize(("m", "n", "iterations"), [(8, 8, 50), (4, 6, 50), (5, 2, 1)])
def test_bucket_transport_is_sinkhorn_knopp_of_the_padded_matrix(
    m: int, n: int, iterations: int
) -> None:
    similarity = random(3, m, n, seed=1)
    rho = torch.tensor(0.4, dtype=torch.float64)
    plans = bucket_transport(similarity, rho, iterations, epsilon=0.1)
    total = m + n
    mu = np.append(np.ones(m), n) / total
    nu = np.append(np.ones(n), m) / total
    for plan, matrix in zip(plans, similarity, strict=True):
        padded = np.pad(matrix, (0, 1), constant_values=0.4)
        whole = total * scaling(padded / 0.1, mu, nu, iterations)
        np.testing.assert_allclose(plan, whole[:m, :n], rtol=1e-10)  # measured: 5e-14


@pytest.mark.parametrize("iterations", [1, 2, 5, 6, 50])
@pytest.mark.parametrize(
    ("spread", "bound"), [(1.0, 1e-6), (30.0, 1e-5), (1000.0, 3e-4)]
)
def test_float32_equals_log_domain_updates_in_float64(
    spread: float, bound: float, iterations: int
) -> None:
    """The exponentials of the kernel are far outside the range of float32. The kernel also has a
    row with only small entries and a column with only large ones.
    """
    m, n = 40, 30
    similarity = spread * (random(2, m, n, seed=3) - 0.5)
    similarity[:, 7] -= spread
    similarity[:, :, 11] += spread

    kernel = similarity.numpy()
    v = np.zeros((2, 1, n))
    for _ in range(iterations):
        u = -math.log(m) - np.logaddexp.reduce(kernel + v, axis=2, keepdims=True)
        v = -math.log(n) - np.logaddexp.reduce(kernel + u, axis=1, keepdims=True)
    expected = m * np.exp(kernel + u + v)

    plan = transport(similarity.float(), iterations)
    # Measured: 5e-8, 2e-6, 6e-5: kernels are rounded.
    np.testing.assert_allclose(plan, expected, rtol=0, atol=bound)
    exact_plan = transport(similarity, iterations)
    # measured: 1e-13
    np.testing.assert_allclose(exact_plan, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    # Its exponential overflows in every type except float64.
    similarity = (300 * random(16, 16)).to(dtype)
    plan = transport(similarity, 50)
    assert plan.dtype == torch.float32
    exact_plan = transport(similarity.double(), 50)
    np.testing.assert_allclose(plan, exact_plan, atol=1e-4)  # measured: 6e-6
    bucket_plan = bucket_transport(similarity, similarity[0, 0], 50)
    assert bucket_plan.dtype == torch.float32


def test_the_plan_has_no_gradient() -> None:
    similarity = random(4, 4).requires_grad_()
    assert not transport(similarity, 3).requires_grad
    assert not bucket_transport(similarity, similarity[0, 0], 3).requires_grad
