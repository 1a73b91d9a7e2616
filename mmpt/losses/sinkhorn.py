"""Entropic optimal transport by Sinkhorn updates, batched, in float32 or wider, without gradient.

Chosen form: potentials are kept as logarithms, and a few updates at a time scale the plan that they
give, which never leaves the range of float32 and is cheaper than a log-sum-exp for every update.
Nothing here waits for a GPU.

Legend: m rows, n columns, `...` batch axes. All masses here count one unit per row, so that a plan
of a square matrix has rows and columns that sum to 1 (the paper's marginals 1/m and 1/n, times m).
"""

import math

import torch
from torch import Tensor

from mmpt.losses.precision import wide

UPDATES_PER_PLAN = 4
"""Pairs of updates that scale one plan. Each update changes a potential by at most a factor of
about n, so what a plan of 1024 columns lost below float32's 1e-38 stays below 1e-13 of the mass
until the next plan is made."""


@torch.no_grad()
def log_sinkhorn(kernel: Tensor, log_mu: Tensor, log_nu: Tensor, iterations: int) -> Tensor:
    """Return the logarithm of the transport plan, [..., m, n]: `iterations` times a row, then a
    column update.

    The last update is of the columns, so those match `log_nu` to rounding and the rows match
    `log_mu` approximately.

    Args:
        kernel: float [..., m, n], similarity divided by the smoothness epsilon.
        log_mu: float [m], logarithm of the row masses.
        log_nu: float [n], logarithm of the column masses, of the same total.
        iterations: how many pairs of updates, at least 1; there is no early stop.
    Source: Cuturi 2013; Norton (arXiv 2401.16702), section 3.2.
    """
    assert iterations > 0
    u = log_mu - torch.logsumexp(kernel, dim=-1)
    v = log_nu - torch.logsumexp(kernel + u.unsqueeze(-1), dim=-2)
    mu, nu = log_mu.exp(), log_nu.exp()
    for done in range(1, iterations, UPDATES_PER_PLAN):
        plan = (kernel + u.unsqueeze(-1)).add_(v.unsqueeze(-2)).exp_()
        columns = torch.ones_like(v)
        for _ in range(min(UPDATES_PER_PLAN, iterations - done)):
            rows = mu / (plan * columns.unsqueeze(-2)).sum(-1)
            columns = nu / (plan * rows.unsqueeze(-1)).sum(-2)
        u, v = u + rows.log(), v + columns.log()
    return kernel + u.unsqueeze(-1) + v.unsqueeze(-2)


@torch.no_grad()
def transport(similarity: Tensor, iterations: int, epsilon: float = 1.0) -> Tensor:
    """Return the plan [..., m, n] between uniform marginals: row sums 1 (approximately), column
    sums m/n.

    Args:
        similarity: float [..., m, n], any floating type; half precision is computed in float32.
        iterations: Sinkhorn iterations (50).
        epsilon: smoothness; the smaller, the sharper the plan.
    Source: Norton, Eq. 7 (clip-caption targets); video-paragraph plan of its ablation without a
    prompt bucket.
    """
    kernel = wide(similarity) / epsilon
    m, n = kernel.shape[-2:]
    log_mu = kernel.new_full((m,), -math.log(m))
    log_nu = kernel.new_full((n,), -math.log(n))
    return (log_sinkhorn(kernel, log_mu, log_nu, iterations) + math.log(m)).exp()


@torch.no_grad()
def bucket_transport(
    similarity: Tensor, bucket: Tensor, iterations: int, epsilon: float = 1.0
) -> Tensor:
    """Return the plan [..., m, n] beside a spare row and column of value `bucket`, which take what
    aligns to nothing.

    The padded plan has row sums 1 (bucket row: n) and column sums 1 (bucket column: m); the
    bucket's part is dropped, so the rows and columns returned sum to at most 1.

    Args:
        similarity: float [..., m, n]; half precision is computed in float32.
        bucket: float scalar tensor, the alignable prompt value rho.
        iterations: Sinkhorn iterations (50).
        epsilon: smoothness.
    Source: Norton, Eq. 4 and the alignable prompt bucket.
    """
    similarity = wide(similarity)
    m, n = similarity.shape[-2:]
    padded = bucket.to(similarity.dtype).expand(*similarity.shape[:-2], m + 1, n + 1).clone()
    padded[..., :m, :n] = similarity
    total = math.log(m + n)
    log_mu = similarity.new_full((m + 1,), -total)
    log_mu[m] += math.log(n)
    log_nu = similarity.new_full((n + 1,), -total)
    log_nu[n] += math.log(m)
    plan = (log_sinkhorn(padded / epsilon, log_mu, log_nu, iterations) + total).exp()
    return plan[..., :m, :n]
