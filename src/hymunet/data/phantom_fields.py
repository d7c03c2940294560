"""Smooth random functions of the plane: the noise from which phantoms are drawn.

Everything lives in *frame coordinates*: the origin is the frame's centre and the unit is the
square root of the frame's area, so a disc of radius r covers pi r^2 of the frame whatever its
size or shape. A function of these coordinates is the same picture at any resolution.

No matrix products: their order of summation may depend on the number of threads, and a phantom's
bytes must not.
"""

import numpy as np

# standard deviation of a cubic B-spline surface over unit normal nodes, averaged over phases:
# the mean over t of the sum of squared weights is 151/315, once per axis
_SPLINE_DEVIATION = 151.0 / 315.0


def random_stream(seed: int, part: int) -> np.random.Generator:
    """A generator of its own for each part of a picture: parts can change without each other."""
    return np.random.default_rng([part, seed])


def frame_grid(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Frame coordinates of the pixel centres, y (height, 1) and x (1, width), float32."""
    height, width = size
    unit = float(np.sqrt(height * width))
    y = (np.arange(height) + 0.5 - height / 2) / unit
    x = (np.arange(width) + 0.5 - width / 2) / unit
    return y[:, None].astype(np.float32), x[None, :].astype(np.float32)


def _spline_taps(position: np.ndarray, nodes: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The four (node index, weight) pairs of a periodic cubic B-spline at `position`."""
    cell = np.floor(position)
    t = position - cell
    weights = (
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    )
    first = cell.astype(np.int64)
    return [((first + k) % nodes, w.astype(np.float32)) for k, w in enumerate(weights)]


def smooth_noise(
    rng: np.random.Generator, y: np.ndarray, x: np.ndarray, frequency: float
) -> np.ndarray:
    """Twice differentiable noise, mean 0 and variance 1 over seeds, periodic after 32 or 64 cells.

    Args:
        rng: Source of the nodes; the same number of draws at any size.
        y: Rows in frame coordinates, (height, 1).
        x: Columns in frame coordinates, (1, width).
        frequency: Cells per unit of length.

    Returns:
        (height, width) float32.
    """
    nodes = 32 if frequency <= 16 else 64
    lattice = rng.standard_normal((nodes, nodes), dtype=np.float32) / np.float32(_SPLINE_DEVIATION)
    shift_y, shift_x = rng.uniform(0, nodes, 2)
    rows = np.zeros((y.shape[0], nodes), np.float32)
    for index, weight in _spline_taps(y[:, 0].astype(np.float64) * frequency + shift_y, nodes):
        rows += lattice[index] * weight[:, None]
    field = np.zeros((y.shape[0], x.shape[1]), np.float32)
    for index, weight in _spline_taps(x[0].astype(np.float64) * frequency + shift_x, nodes):
        field += rows[:, index] * weight
    return field


def fractal_noise(
    rng: np.random.Generator,
    y: np.ndarray,
    x: np.ndarray,
    frequency: float,
    octaves: int = 3,
    gain: float = 0.55,
) -> np.ndarray:
    """Sum of `smooth_noise` at doubling frequencies, each weaker by `gain`; variance 1."""
    field = smooth_noise(rng, y, x, frequency)
    total = 1.0
    for octave in range(1, octaves):
        field += np.float32(gain**octave) * smooth_noise(rng, y, x, frequency * 2**octave)
        total += gain ** (2 * octave)
    return field / np.float32(np.sqrt(total))


def smooth_step(low: float, high: float, value: np.ndarray) -> np.ndarray:
    """0 below `low`, 1 above `high`, a cubic between: 3 t^2 - 2 t^3."""
    t = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def scattered_dots(
    rng: np.random.Generator,
    y: np.ndarray,
    x: np.ndarray,
    frequency: float,
    presence: float,
    radius: tuple[float, float] = (0.15, 0.32),
    softness: float = 0.12,
) -> np.ndarray:
    """Round dots, at most one in each cell of a jittered grid, so that none is ever cut.

    Args:
        rng: Source of presence, place, size and strength of each dot.
        y: Rows in frame coordinates, broadcastable with `x`; may be warped.
        x: Columns in frame coordinates.
        frequency: Cells per unit of length.
        presence: Share of the cells that hold a dot.
        radius: Smallest and largest radius, in cells; with `softness` at most 0.5.
        softness: Width of a dot's edge, in cells.

    Returns:
        (height, width) float32 in [0, 1].
    """
    nodes = 64
    size = rng.uniform(*radius, (nodes, nodes)).astype(np.float32)
    room = 0.5 - size - softness
    dy, dx = (0.5 + room * rng.uniform(-1, 1, (2, nodes, nodes))).astype(np.float32)
    strength = rng.uniform(0.5, 1, (nodes, nodes)) * (rng.random((nodes, nodes)) < presence)
    v, u = np.broadcast_arrays(y * np.float32(frequency) + 32, x * np.float32(frequency) + 32)
    row, column = np.floor(v), np.floor(u)
    cell = (row.astype(np.int64) % nodes) * nodes + column.astype(np.int64) % nodes
    distance = np.hypot(v - row - dy.ravel()[cell], u - column - dx.ravel()[cell])
    edge = np.clip((size.ravel()[cell] - distance) / np.float32(softness) + 1, 0, 1)
    return edge * edge * (3 - 2 * edge) * strength.astype(np.float32).ravel()[cell]
