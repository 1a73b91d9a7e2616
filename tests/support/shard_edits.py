"""Edits of the rows of a shard that imitate common mistakes in the preparation of data."""

from collections.abc import Callable

import numpy as np

Rows = list[np.ndarray]
"""The rows of every video of a shard: features, caption times or word pieces."""


def each(edit: Callable[[np.ndarray], np.ndarray]) -> Callable[[Rows], Rows]:
    """Returns an edit of the rows of all videos."""
    return lambda rows: [edit(row) for row in rows]


def one_in(
    count: int, edit: Callable[[np.ndarray], np.ndarray]
) -> Callable[[Rows], Rows]:
    """Returns an edit of the rows of every `count`-th video."""

    def edit_some(rows: Rows) -> Rows:
        edited = list(rows)
        for place in range(count - 1, len(rows), count):
            edited[place] = edit(rows[place])
        return edited

    return edit_some


def scaled(factor: float) -> Callable[[Rows], Rows]:
    return each(lambda values: values * factor)


def shifted(seconds: float) -> Callable[[Rows], Rows]:
    return each(lambda times: times + seconds)


def milliseconds(times: np.ndarray) -> np.ndarray:
    return times * 1000


def minutes(times: np.ndarray) -> np.ndarray:
    return times / 60


def shares(times: np.ndarray) -> np.ndarray:
    return times / times.max()


def swapped(times: np.ndarray) -> np.ndarray:
    return times[:, ::-1]


def without_length(times: np.ndarray) -> np.ndarray:
    return times[:, [0, 0]]


def open_end(times: np.ndarray) -> np.ndarray:
    times = times.copy()
    times[-1, 1] = 359_999.999  # 99:59:59,999
    return times


def repeated(count: int, seed: int | None = None) -> Callable[[Rows], Rows]:
    """Returns an edit that repeats every feature row. With a seed, the copies differ a little."""

    def edit(rows: np.ndarray) -> np.ndarray:
        rows = rows.repeat(count, axis=0)
        if seed is not None:
            rng = np.random.default_rng(seed)
            rows[:, 0] += rng.normal(0, 0.01, len(rows))
        return rows

    return each(edit)


def first_rows(share: float) -> Callable[[Rows], Rows]:
    return each(lambda rows: rows[: int(len(rows) * share)])


def every_other(rows: np.ndarray) -> np.ndarray:
    return rows[::2]


def transposed_wrongly(rows: np.ndarray) -> np.ndarray:
    columns = np.ascontiguousarray(rows.T)
    return columns.reshape(rows.shape)


def unit(rows: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(rows.astype(float), axis=1, keepdims=True)
    return (rows / norms).astype(np.float16)


def collapsed(rows: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    direction = unit(np.ones((1, 512)))
    return unit(direction + rng.normal(0, 0.002, rows.shape))


def narrow(rows: np.ndarray) -> np.ndarray:
    rows = rows.copy()
    rows[:, 256:] = 0
    return rows


def of_next_video(rows: Rows) -> Rows:
    return [*rows[1:], rows[0]]


def of_first_video(rows: Rows) -> Rows:
    return [rows[0]] * len(rows)


def same_piece(ids: np.ndarray) -> np.ndarray:
    return np.full_like(ids, 105)


def no_pieces(ids: np.ndarray) -> np.ndarray:
    return np.full_like(ids, -1)


def full_captions(ids: np.ndarray) -> np.ndarray:
    return np.where(ids < 0, 105, ids)


def pieces(share: float, ids: list[int]) -> Callable[[Rows], Rows]:
    """Returns an edit that replaces a share of the word pieces by random ones of `ids`."""
    rng = np.random.default_rng(0)

    def edit(rows: np.ndarray) -> np.ndarray:
        is_replaced = (rows >= 0) & (rng.random(rows.shape) < share)
        others = rng.choice(ids, rows.shape)
        return np.where(is_replaced, others, rows).astype(np.int32)

    return each(edit)
