"""Short vectors that stand in for long ones in a search: distances between them are never above the true ones.

A sketch is the projection on the directions in which the vectors differ most, and the length of what that leaves out:
|q - x|^2 = |q' - x'|^2 + |q* - x*|^2 >= |q' - x'|^2 + (|q*| - |x*|)^2, and likewise qx <= q'x' + |q*||x*|. So whatever
the sketches rule out is ruled out. Legend: n vectors, D their size, S the size of a sketch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

SHARE = 0.95
"""Of the vectors' variance, what the projection holds."""
STEP = 16
"""The projection's directions are a multiple of this."""


@dataclass(frozen=True)
class Sketcher:
    """Makes sketches; without a basis they are the vectors themselves."""

    mean: np.ndarray | None = None
    """float32 [D]."""
    basis: np.ndarray | None = None
    """float32 [D,S-1], orthonormal columns."""

    @classmethod
    def fit(cls, vectors_nD: np.ndarray, *, is_l2: bool) -> Sketcher:
        """Take the fewest directions that hold `SHARE` of the variance; none where that would need half of them.

        Args:
            vectors_nD: float32, some of the vectors.
            is_l2: distances, which do not change when the mean is taken off; else dot products, which do.
        """
        mean_D = vectors_nD.mean(axis=0) if is_l2 else np.zeros(vectors_nD.shape[1], np.float32)
        centred_nD = vectors_nD - mean_D
        variances_D, directions_DD = np.linalg.eigh((centred_nD.T @ centred_nD).astype(np.float64))
        shares_D = np.cumsum(variances_D[::-1]) / max(float(variances_D.sum()), 1e-30)
        num = -(-(int((shares_D < SHARE).sum()) + 1) // STEP) * STEP
        if 2 * num >= len(mean_D):
            return cls()
        return cls(mean_D, np.ascontiguousarray(directions_DD[:, ::-1][:, :num], dtype=np.float32))

    def size(self, dim: int) -> int:
        """Return S for vectors of size D."""
        return dim if self.basis is None else self.basis.shape[1] + 1

    def __call__(self, vectors_nD: np.ndarray) -> np.ndarray:
        """Return float32 [n,S] for float32 [n,D]."""
        if self.basis is None:
            return vectors_nD
        centred_nD = vectors_nD - self.mean
        sketches_nS = np.empty((len(vectors_nD), self.basis.shape[1] + 1), dtype=np.float32)
        torch.mm(torch.from_numpy(centred_nD), torch.from_numpy(self.basis), out=torch.from_numpy(sketches_nS)[:, :-1])
        squares_n = np.einsum("nd,nd->n", centred_nD, centred_nD)
        held_n = np.einsum("ns,ns->n", sketches_nS[:, :-1], sketches_nS[:, :-1])
        # the length may be too long, never too short: rounding is added
        sketches_nS[:, -1] = np.sqrt(np.maximum(squares_n - held_n, 0) + rounding(vectors_nD.shape[1]) * squares_n)
        return sketches_nS


def rounding(dim: int) -> float:
    """Return a bound of the relative error of a sum of `dim` float32 products and the like (unit roundoff 2^-24)."""
    return (dim + 8) * 2.0**-22
