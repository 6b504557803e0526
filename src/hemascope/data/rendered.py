"""Rendered cells: a seeded, synthetic stand-in for photographs of stained blood cells.

Every image is one *scene* (a white cell or platelet among red cells) described in tile units,
x and y in [-1, 1], so the same seed shows the same cell at every image size. Shapes are signed
distances turned into soft masks, and textures are averaged over each pixel, so nothing aliases at
28 pixels. Colors follow a May-Grünwald-Giemsa stain. No photograph's pixels are stored here.
"""

import io
import tomllib
from importlib import resources

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Floats = NDArray[np.floating]
Scene = dict[str, Floats]

# Images that share one random stream. Fixed, so that a prefix of the labels gives a prefix of the
# images; small, so that the working arrays stay in cache at 28 px and under 200 MB at 256 px.
CHUNK = 24
SMALLEST_SIZE = 8
JPEG_QUALITY = 75

NODES = 5  # points on the center line of a nucleus, so at most five lobes
GRANULES, VACUOLES, SPECKS = 90, 7, 3
RED_CELL_ROWS = 5  # red cells sit on a jittered square grid
COARSE, MIDDLE, FINE = 7, 14, 40  # noise lattices, in nodes per side
BLUISH = np.array([0.87, 0.97, 1.14], np.float32)  # white balance of the rare bluish slides


def _styles() -> Scene:
    """The ends that each class's values are drawn between, (C, 2) or (C, 2, 3) for each field."""
    text = (resources.files("hemascope.data") / "rendered.toml").read_text("utf-8")
    table = tomllib.loads(text)
    cells = [{**table["cell"], **own, **table["slide"]} for own in table["classes"].values()]
    return {name: np.array([cell[name] for cell in cells], np.float32) for name in cells[0]}


STYLES = _styles()


def render(labels: NDArray[np.int64], *, seed: int, image_size: int = 28) -> NDArray[np.uint8]:
    """Get a believable, labeled blood-cell image for each label, without any data set.

    An image depends only on its label, its position, the seed and the size: the first ten of six
    hundred images are the ten that ten labels alone would give, and another size shows the same
    cells. 17,092 images at 28 px take about 15 s on one core.

    Args:
        labels: (N,) class indices 0-7 in MedMNIST's order: basophil, eosinophil, erythroblast,
            immature granulocyte, lymphocyte, monocyte, neutrophil, platelet.
        seed: Non-negative; another seed gives other cells.
        image_size: Height and width in pixels, at least 8.

    Returns:
        (N, image_size, image_size, 3) RGB images in 0-255, as decoded from JPEG at quality 75.

    Raises:
        ValueError: `labels` is not one-dimensional integers in 0-7, `seed` is negative or
            `image_size` is below 8.

    Source:
        The class order, the 28 px tile and the JPEG step follow MedMNIST v2 (Yang et al. 2023);
        the morphology follows the eight cell groups of Acevedo et al. (2020).
    """
    _check(labels, seed, image_size)
    images = np.empty((len(labels), image_size, image_size, 3), np.uint8)
    for start in range(0, len(labels), CHUNK):
        part = labels[start : start + CHUNK]
        full = np.zeros(CHUNK, np.int64)  # always a whole chunk, so the draws never depend on N
        full[: len(part)] = part
        scene = _draw_scene(full, np.random.default_rng((seed, start // CHUNK)))
        for offset, tile in enumerate(_paint_scene(scene, image_size)[: len(part)]):
            images[start + offset] = _through_jpeg(tile)
    return images


def _check(labels: NDArray[np.int64], seed: int, image_size: int) -> None:
    """Refuses what cannot be drawn."""
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        found = f"{labels.dtype} of shape {labels.shape}"
        raise ValueError(f"labels must be a one-dimensional integer array, not {found}.")
    if labels.size and not 0 <= labels.min() <= labels.max() < len(STYLES["radius"]):
        raise ValueError(f"labels must lie in 0-7, but span {labels.min()} to {labels.max()}.")
    if image_size < SMALLEST_SIZE:
        raise ValueError(f"image_size must be at least {SMALLEST_SIZE} pixels, not {image_size}.")
    if seed < 0:
        raise ValueError(f"seed must not be negative, but it is {seed}.")


# --- drawing the random description of a chunk of scenes ---------------------------------------


def _draw_scene(labels: NDArray[np.int64], rng: np.random.Generator) -> Scene:
    """Draw everything random about a chunk; each image's numbers depend on its own label only."""

    def uniform(*shape: int) -> Floats:
        return rng.random((len(labels), *shape), dtype=np.float32)

    def between(ends: Floats) -> Floats:
        low, high = ends[:, 0], ends[:, 1]
        at = uniform(1)[:, 0]
        if low.ndim == 2:  # a color moves along its shade, with a little play per channel
            at = 0.75 * at[:, None] + 0.25 * uniform(3)
        return low + at * (high - low)

    scene = {name: between(ends[labels]) for name, ends in STYLES.items()}
    for name, nodes in (("coarse", COARSE), ("middle", MIDDLE), ("fine", FINE)):
        scene[name] = 2 * uniform(3, nodes, nodes) - 1
    scene["turn"] = 2 * np.pi * uniform(4)
    scene["node_jitter"] = 2 * uniform(NODES, 2) - 1
    scene["link_pinch"] = 0.4 + 1.6 * uniform(NODES - 1)
    scene["granule_at"] = uniform(GRANULES, 2)
    scene["vacuole_at"] = uniform(VACUOLES, 2)
    scene["speck_at"] = 2 * uniform(SPECKS, 2) - 1
    scene["neighbor_far"] = 1.3 + 0.25 * uniform(1)[:, 0]
    scene["red_at"] = uniform(RED_CELL_ROWS**2, 7)
    # 1 where a rare thing happens: a smear, specks, a neighboring cell, a bluish slide.
    scene["happens"] = (uniform(4) < np.array([0.07, 0.15, 0.1, 0.05])).astype(np.float32)
    return scene


# --- shared tools: masks, noise, spots, paint ---------------------------------------------------


def _wide(values: Floats) -> Floats:
    """Shape one number per image so that it combines with (N, size, size) planes."""
    return values[:, None, None]


def _inside(distance: Floats, soft: Floats) -> Floats:
    """Turn signed distances (negative inside) into a mask in [0, 1] with a smooth edge."""
    t = np.clip(0.5 - distance / (2 * soft), 0, 1)
    return t * t * (3 - 2 * t)


def _noise(lattice: Floats, size: int) -> Floats:
    """Smooth (N, G, G) lattices to (N, size, size) by cubic B-splines averaged over each pixel."""
    nodes = lattice.shape[-1]
    samples = 1 + (np.arange(4 * size) + 0.5) / (4 * size) * (nodes - 3)
    t = np.abs(samples[:, None] - np.arange(nodes))
    spline = np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6)
    weights = spline.reshape(size, 4, nodes).mean(1).astype(np.float32)
    return 1.6 * weights @ lattice @ weights.T


def _spots(at: Floats, sigma: Floats | float, axis: Floats, blur: Floats) -> Floats:
    """Sum round Gaussian spots at (N, K, 2); sigma and blur are (N,); gives (N, size, size).

    A Gaussian is a product over x and y, so the sum over spots is one matrix product. The blur
    widens a spot and lowers its peak, which keeps the amount of stain whatever the pixel size.
    """
    variance = _wide(sigma**2 + blur**2)
    across, down = (np.exp(-((axis - at[..., i, None]) ** 2) / (2 * variance)) for i in (0, 1))
    return _wide(sigma**2 / (sigma**2 + blur**2)) * (np.swapaxes(down, 1, 2) @ across)


def _paint(canvas: Floats, mask: Floats, color: Floats) -> None:
    """Lay a color (N, 3) over the canvas (N, 3, size, size) where the mask says so, in place."""
    for channel in range(3):  # one at a time, for the memory
        canvas[:, channel] += mask * (_wide(color[:, channel]) - canvas[:, channel])


def _in_cell(at: Floats, scene: Scene) -> Floats:
    """Spread unit-square draws (N, K, 2) evenly over the cell's disc."""
    far = scene["radius"][:, None] * np.sqrt(at[..., 0])
    angle = 2 * np.pi * at[..., 1]
    center = np.stack([scene["center_x"], scene["center_y"]], -1)[:, None]
    return center + np.stack([far * np.cos(angle), far * np.sin(angle)], -1)


# --- the scene, from the back to the front ------------------------------------------------------


def _paint_scene(scene: Scene, size: int) -> NDArray[np.uint8]:
    """Paint a chunk of scenes: (N, size, size, 3) RGB before JPEG."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) * np.float32(2 / size) - 1
    soft = np.hypot(np.float32(1.4 / size), scene["haze"])  # an edge is at least 1.4 pixels wide
    canvas = np.tile(scene["background"][:, :, None, None], (1, 1, size, size))
    _paint_red_cells(canvas, scene, axis, soft)
    _paint_debris(canvas, scene, axis, soft)
    _paint_neighbor(canvas, scene, axis, soft)
    _paint_cell(canvas, scene, axis, soft)
    canvas *= 1 + 0.008 * _noise(scene["fine"][:, 2], size)[:, None]
    gains = BLUISH ** scene["happens"][:, 3:] * scene["light"][:, None]
    canvas *= gains[:, :, None, None]
    return np.clip(np.moveaxis(canvas, 1, -1) + 0.5, 0, 255).astype(np.uint8)


def _paint_red_cells(canvas: Floats, scene: Scene, axis: Floats, soft: Floats) -> None:
    """Scatter red cells on a jittered grid, pushed aside where the white cell lies."""
    center = np.stack([scene["center_x"], scene["center_y"]], -1)
    for index in range(RED_CELL_ROWS**2):
        row, column = divmod(index, RED_CELL_ROWS)
        draw = scene["red_at"][:, index]
        radius = scene["red_radius"] * (0.85 + 0.3 * draw[:, 2])
        grid = np.array([column, row], np.float32) - (RED_CELL_ROWS - 1) / 2
        away = 0.58 * (grid + 0.9 * (draw[:, :2] - 0.5)) - center
        distance = np.maximum(np.hypot(away[:, 0], away[:, 1]), 1e-3)
        clear = scene["radius"] + 0.9 * radius
        at = center + away * (np.maximum(distance, clear) / distance)[:, None]
        x, y = axis - _wide(at[:, 0]), axis[:, None] - _wide(at[:, 1])
        cos, sin = _wide(np.cos(np.pi * draw[:, 3])), _wide(np.sin(np.pi * draw[:, 3]))
        squash = _wide(1 + 0.35 * draw[:, 4] ** 2)
        ratio = np.hypot((x * cos + y * sin) * squash, y * cos - x * sin) / _wide(radius)
        disc = _inside((ratio - 1) * _wide(radius), _wide(soft))
        hollow = _inside(ratio - 0.5, _wide(0.2 + soft / radius))
        pallor = _wide(np.clip(scene["red_pallor"] * (0.6 + 0.5 * draw[:, 5]), 0, 0.9))
        present = _wide((draw[:, 6] < scene["red_crowding"]).astype(np.float32))
        _paint(canvas, 0.95 * present * disc * (1 - pallor * hollow), scene["red_rim"])


def _paint_debris(canvas: Floats, scene: Scene, axis: Floats, soft: Floats) -> None:
    """Add what lies about on some slides: a pink smear of stain, small purple specks."""
    smeared, specked = _wide(scene["happens"][:, 0]), _wide(scene["happens"][:, 1])
    smear = _spots(scene["speck_at"][:, :1], 0.4, axis, soft)
    _paint(canvas, 0.6 * smeared * smear, scene["smear"])
    specks = _spots(scene["speck_at"][:, 1:], 0.05, axis, 0.6 * soft)
    _paint(canvas, specked * np.minimum(specks, 1), scene["speck"])


def _paint_neighbor(canvas: Floats, scene: Scene, axis: Floats, soft: Floats) -> None:
    """Let another nucleated cell reach into some tiles from the edge."""
    turn, far = scene["turn"][:, 3], scene["neighbor_far"]
    x, y = axis - _wide(far * np.cos(turn)), axis[:, None] - _wide(far * np.sin(turn))
    distance = np.hypot(x, y) + 0.12 * _noise(scene["middle"][:, 2], len(axis))
    for name, radius in (("cytoplasm", 0.52), ("nucleus", 0.42)):
        mask = _inside(distance - radius, _wide(soft))
        _paint(canvas, _wide(scene["happens"][:, 2]) * mask, scene[name])


def _paint_cell(canvas: Floats, scene: Scene, axis: Floats, soft: Floats) -> None:
    """Paint the cell the label names: cytoplasm, nucleus, granules, vacuoles."""
    size, edge, (warp_x, warp_y, mottle) = len(axis), _wide(soft), _noises(scene["coarse"], axis)
    fold_x, fold_y, patches = _noises(scene["middle"], axis)
    x = axis - _wide(scene["center_x"]) + _wide(scene["wobble"]) * warp_x
    y = axis[:, None] - _wide(scene["center_y"]) + _wide(scene["wobble"]) * warp_y
    outline = _body_distance(scene, x, y)
    body = _inside(outline, edge)
    folds = _wide(scene["folds"])
    nucleus = body * _inside(_nucleus_distance(scene, x + folds * fold_x, y + folds * fold_y), edge)
    clumps = _noise(scene["fine"][:, 0], size)
    _paint(canvas, body, scene["cytoplasm"])
    rim = np.exp(-((outline / 0.06) ** 2))
    canvas *= 1 + (body * (0.07 * mottle + 0.06 * clumps - 0.08 * rim))[:, None]
    _paint(canvas, nucleus, scene["nucleus"])
    canvas *= 1 + (nucleus * _wide(scene["clumping"]) * (clumps + 0.6 * patches))[:, None]
    spots = _spots(_in_cell(scene["granule_at"], scene), scene["granule_size"], axis, 0.5 * soft)
    opacity = _wide(scene["granularity"]) * (1 - np.exp(-1.5 * spots))
    _paint(canvas, body * (1 - nucleus * (1 - _wide(scene["veil"]))) * opacity, scene["granule"])
    holes = _spots(_in_cell(scene["vacuole_at"], scene), 0.045, axis, 0.5 * soft)
    opacity = _wide(np.clip(scene["vacuoles"], 0, 1)) * np.minimum(holes, 1)
    pale = (scene["cytoplasm"] + scene["background"]) / 2
    _paint(canvas, body * (1 - 0.4 * nucleus) * opacity, pale)


def _noises(lattices: Floats, axis: Floats) -> list[Floats]:
    """Give the planes of every lattice in (N, L, G, G) as a list of L."""
    return [_noise(lattices[:, i], len(axis)) for i in range(lattices.shape[1])]


def _body_distance(scene: Scene, x: Floats, y: Floats) -> Floats:
    """Signed distance to the cell's outline, an ellipse before the warp of x and y."""
    cos, sin = _wide(np.cos(scene["turn"][:, 0])), _wide(np.sin(scene["turn"][:, 0]))
    root = _wide(np.sqrt(scene["stretch"]))
    return np.hypot((x * cos + y * sin) / root, (y * cos - x * sin) * root) - _wide(scene["radius"])


def _nucleus_distance(scene: Scene, x: Floats, y: Floats) -> Floats:
    """Signed distance to the nucleus: lobes on an arc, joined by links that pinch in the middle.

    One chain makes every nucleus: a dot when it has one lobe, a kidney when its lobes overlap, a
    band or ring when the links are as wide as the lobes, a segmented nucleus when they are thin.
    """
    at, radius = _lobes(scene)
    nearest = np.full_like(x, np.inf)
    for k in range(NODES - 1):
        link_x, link_y = _wide(at[:, k + 1, 0] - at[:, k, 0]), _wide(at[:, k + 1, 1] - at[:, k, 1])
        dx, dy = x - _wide(at[:, k, 0]), y - _wide(at[:, k, 1])
        length = np.maximum(np.hypot(link_x, link_y), 1e-5)
        along = np.clip((dx * link_x + dy * link_y) / length**2, 0, 1)
        near, far = _wide(radius[:, k]), _wide(radius[:, k + 1])
        # Every link pinches its own share; lobes that overlap anyway cannot be pinched apart.
        apart = np.clip(_wide(scene["link_pinch"][:, k]) * length / (near + far), 0, 1)
        waist = 1 - 4 * _wide(scene["pinch"]) * apart * along * (1 - along)
        gap = np.hypot(dx - along * link_x, dy - along * link_y)
        nearest = np.minimum(nearest, gap - waist * (near + along * (far - near)))
    return nearest


def _lobes(scene: Scene) -> tuple[Floats, Floats]:
    """Place the lobes: centers (N, NODES, 2) from the cell's center and radii (N, NODES).

    Nodes beyond the number of lobes repeat the last one, which leaves the shape as it is.
    """
    last = np.maximum(np.round(scene["lobes"]) - 1, 0)[:, None]
    step = np.minimum(np.arange(NODES, dtype=np.float32), last)
    angle = scene["turn"][:, 1:2] + scene["span"][:, None] * (step / np.maximum(last, 1) - 0.5)
    jitter = np.take_along_axis(scene["node_jitter"], step.astype(np.intp)[:, :, None], axis=1)
    bend = scene["bend"][:, None] * (1 + 0.25 * jitter[..., 0])
    at = np.stack([bend * np.cos(angle), bend * np.sin(angle)], -1)
    heading = scene["turn"][:, 2]
    shift = scene["shift"][:, None] * np.stack([np.cos(heading), np.sin(heading)], -1)
    at = at - at.mean(1, keepdims=True) + shift[:, None]
    # The same amount of chromatin shared among more lobes makes each lobe smaller.
    radius = scene["lobe_radius"][:, None] / (last + 1) ** 0.4 * (1 + 0.2 * jitter[..., 1])
    return at * _wide(scene["radius"]), radius * scene["radius"][:, None]


def _through_jpeg(tile: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Give a tile the marks of JPEG, as the files have that BloodMNIST was made from."""
    memory = io.BytesIO()
    Image.fromarray(tile).save(memory, format="JPEG", quality=JPEG_QUALITY)
    return np.asarray(Image.open(memory))
