"""Entropic optimal transport by Sinkhorn's algorithm, batched and without gradient.

Half precision is computed in float32. Nothing here waits for a GPU.

Legend: m rows, n columns, `...` batch axes. Plans are scaled such that a row has a mass of 1, so
the rows and columns of a square plan sum to 1. (The papers use a mass of 1/m per row and 1/n per
column; the plans here are m times those.)
"""

import math

import torch
from torch import Tensor

from mmpt.losses.base import upcast

ITERATIONS_PER_PLAN = 4
"""Iterations that rescale one plan before the potentials are updated.

An iteration updates the rows and the columns. Each update changes an entry by a factor of at most
about n. An entry that was lost because it fell below 1e-38, the smallest float32, could therefore
not exceed 1e-13 within four iterations if n is 1024.
"""


@torch.no_grad()
def log_sinkhorn(
    kernel: Tensor, log_mu: Tensor, log_nu: Tensor, iterations: int
) -> Tensor:
    """Returns the logarithm of the transport plan, float [..., m, n].

    An iteration updates the rows and then the columns. The columns of the result therefore match
    `log_nu` to rounding, and the rows match `log_mu` approximately.

    Args:
        kernel: float [..., m, n], the similarity divided by the smoothness epsilon.
        log_mu: float [m], logarithm of the row masses.
        log_nu: float [n], logarithm of the column masses. Their total is that of the rows.
        iterations: number of iterations, at least 1. There is no early stop.
    Source: Cuturi 2013; Norton (arXiv 2401.16702), section 3.2. The rescaled plan is the
        log-domain stabilisation of Schmitzer (arXiv 1610.06519).
    """
    # The plan has the form exp(kernel + u + v). The row potentials u and the column potentials v
    # are updated in turn until the plan has the wanted row and column masses.
    #
    # A plain update in the log domain takes a log-sum-exp over the whole matrix. It is safe for
    # kernels of any size, but slow. Multiplying exp(kernel) by scaling factors is much faster, but
    # exp(kernel) leaves the range of float32. This function combines the two: it computes the plan
    # of the current potentials, whose entries are never much above 1, rescales its rows and
    # columns in a few fast iterations, and then adds the logarithms of the scaling factors to the
    # potentials.
    assert iterations > 0

    # Values of rows have the shape [..., m, 1], and values of columns [..., 1, n].
    log_mu = log_mu.unsqueeze(-1)
    mu = log_mu.exp()
    nu = log_nu.exp()

    # The first iteration is in the log domain, so that the first plan is in range.
    u = log_mu - kernel.logsumexp(dim=-1, keepdim=True)
    v = log_nu - (kernel + u).logsumexp(dim=-2, keepdim=True)

    for num_done in range(1, iterations, ITERATIONS_PER_PLAN):
        num_left = iterations - num_done
        plan = (kernel + u).add_(v).exp_()
        column_scale = torch.ones_like(v)
        for _ in range(min(ITERATIONS_PER_PLAN, num_left)):
            row_scale = mu / (plan * column_scale).sum(-1, keepdim=True)
            column_scale = nu / (plan * row_scale).sum(-2, keepdim=True)
        u = u + row_scale.log()
        v = v + column_scale.log()
    return kernel + u + v


@torch.no_grad()
def transport(similarity: Tensor, iterations: int, epsilon: float = 1.0) -> Tensor:
    """Returns the transport plan between uniform marginals, float [..., m, n].

    Rows sum to 1 approximately, columns sum to m/n.

    Args:
        similarity: float [..., m, n]. Half precision is computed in float32.
        iterations: Sinkhorn iterations. Norton uses 50.
        epsilon: smoothness. A smaller value gives a sharper plan.
    Source: Norton, Eq. 7 (targets of the clip-caption term). Also the video-paragraph plan of its
        ablation without a prompt bucket.
    """
    kernel = upcast(similarity) / epsilon
    m, n = kernel.shape[-2:]
    log_mu = kernel.new_full((m,), -math.log(m))
    log_nu = kernel.new_full((n,), -math.log(n))
    log_plan = log_sinkhorn(kernel, log_mu, log_nu, iterations)
    return (log_plan + math.log(m)).exp()


@torch.no_grad()
def bucket_transport(
    similarity: Tensor, bucket: Tensor, iterations: int, epsilon: float = 1.0
) -> Tensor:
    """Returns the transport plan of a matrix with a prompt bucket, float [..., m, n].

    The bucket is an additional row and column whose similarities all equal `bucket`. Rows and
    columns that match nothing else are aligned with it. It is removed from the plan, so the rows
    and columns of the result sum to at most 1.

    Args:
        similarity: float [..., m, n]. Half precision is computed in float32.
        bucket: float scalar tensor, the alignable prompt value rho.
        iterations: Sinkhorn iterations. Norton uses 50.
        epsilon: smoothness. A smaller value gives a sharper plan.
    Source: Norton, Eq. 4 and the alignable prompt bucket.
    """
    similarity = upcast(similarity)
    m, n = similarity.shape[-2:]
    batch_axes = similarity.shape[:-2]
    bucket = bucket.to(similarity.dtype)
    padded = bucket.expand(*batch_axes, m + 1, n + 1).clone()
    padded[..., :m, :n] = similarity

    # A row or column has a mass of 1. The bucket can take all of the other side: the bucket's row
    # has a mass of n, its column a mass of m. Sinkhorn gets them divided by their total, m + n.
    log_total = math.log(m + n)
    log_mu = similarity.new_full((m + 1,), -log_total)
    log_mu[m] += math.log(n)
    log_nu = similarity.new_full((n + 1,), -log_total)
    log_nu[n] += math.log(m)
    kernel = padded / epsilon
    log_plan = log_sinkhorn(kernel, log_mu, log_nu, iterations)
    plan = (log_plan + log_total).exp()
    return plan[..., :m, :n]
