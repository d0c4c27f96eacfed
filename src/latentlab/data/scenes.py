"""A ray-traced room in the manner of 3D Shapes, drawn on the fly, with exact segmentation masks."""

from __future__ import annotations

import math
import threading

import torch
from torch import Tensor

from latentlab.data.arrays import check_image_size
from latentlab.data.correlation import Correlation
from latentlab.data.factors import FactorDataset, FactorSpace, Indices, as_indices
from latentlab.data.sprites import hue_colors

SHAPES = ("cube", "cylinder", "sphere", "capsule")
SPACE = FactorSpace(
    ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation"), (10, 10, 10, 8, 4, 15)
)
_GEOMETRIES = 8 * 4 * 15  # what remains of the grid without its hues

# The room in its own units: the floor is z = 0, two walls meet behind the object at (0, CORNER, z).
_CORNER = 5.0
_CAMERA_DISTANCE, _CAMERA_HEIGHT, _TARGET_HEIGHT = 8.2, 3.6, 1.1
_HALF_VIEW = math.tan(math.radians(18.5))
_LIGHT = (-0.5, -0.72, 1.15)
_LIGHT_RADIUS = 0.12
_SUBPIXELS = 3  # a side; odd, so that one of them is the pixel's centre

_SATURATION, _FLOOR_VALUE, _WALL_VALUE, _OBJECT_VALUE = 0.74, 0.95, 0.95, 1.0


class Scenes(FactorDataset):
    """One object in the corner of a room: 10 floor, wall and object hues, 8 scales, 4 shapes, 15 views.

    The grid, factor order and names are those of 3D Shapes: hue i is i / 10 of the colour wheel, scale
    0.75 .. 1.25, shape cube, cylinder, sphere, capsule, orientation the camera's way around the object from
    -30 to 30 degrees. Shading is linear in the three colours, so each of the 480 geometries is traced once,
    when first asked for (9 rays a pixel, Lambert and ambient light, soft shadow), and then only coloured.

    Args:
        correlation: Correlated training distribution, see ``Correlation``, as in
            ``("floor_hue", "wall_hue", 0.2)``. ``sample`` and ``batch`` follow it; ``images`` and ``index``
            stay the full grid.
        image_size: Side in pixels. The traced geometries take 8 kB a pixel: 31 MB at 64, 126 MB at 128.

    Raises:
        ValueError: An image size outside 8 .. 512, or a correlation that cannot be read.

    References:
        Disentangling by Factorising (Kim and Mnih, 2018), for which 3D Shapes was made. Room, light and
        colours are our own.
    """

    mask_names = ("floor", "wall", "object", *SHAPES)
    """Channels of ``masks``: the first three divide the image, the last four divide ``object``."""

    def __init__(self, correlation: object = None, image_size: int = 64):
        check_image_size(image_size)
        super().__init__(
            name="scenes",
            source="ray-traced here in the manner of 3D Shapes (Burgess and Kim, 2018); no file; Apache-2.0",
            image_shape=(3, image_size, image_size),
            size=len(SPACE),
            factor_space=SPACE,
            categories={"shape": SHAPES},
            circular={"floor_hue": 10, "wall_hue": 10, "object_hue": 10},
            correlation=None if correlation is None else Correlation(SPACE, correlation),
        )
        self._lock = threading.Lock()
        self._move(self.device)

    def masks(self, indices: Indices) -> Tensor:
        """Exact segmentation of the given images, sampled at pixel centres.

        Args:
            indices: Int (n,), each in 0 .. len - 1.

        Returns:
            Bool (n, 7, height, width) on the data set's device, channels as in ``mask_names``: each pixel is
            exactly one of floor, wall and object, and an object pixel exactly one shape.
        """
        geometry = self._trace(as_indices(indices, len(self), self.name).reshape(-1).to(self.device))
        labels = self._labels[geometry]
        shape = torch.div(geometry, 15, rounding_mode="floor").remainder(4)[:, None, None]
        parts = [labels == region for region in range(3)]
        parts += [parts[2] & (shape == which) for which in range(4)]
        return torch.stack(parts, dim=1)

    @torch.inference_mode(False)  # filled in later, perhaps outside of the mode this was called in
    def _move(self, device: torch.device) -> None:
        side = self.image_shape[1]
        self._maps = torch.zeros(_GEOMETRIES, 4, side * side, device=device)
        self._labels = torch.zeros(_GEOMETRIES, side, side, dtype=torch.uint8, device=device)
        self._traced = torch.zeros(_GEOMETRIES, dtype=torch.bool)
        values = ((_SATURATION, _FLOOR_VALUE), (_SATURATION, _WALL_VALUE), (_SATURATION, _OBJECT_VALUE))
        self._palette = torch.stack([hue_colors(10, *value) for value in values]).to(device)

    def _read(self, indices: Tensor) -> Tensor:
        geometry = self._trace(indices)
        hues = SPACE.factors(indices)[:, :3]
        regions = torch.arange(3, device=indices.device)
        colors = torch.ones(len(indices), 3, 4, device=indices.device)  # the fourth map is white gloss
        colors[:, :, :3] = self._palette[regions, hues].transpose(1, 2)
        images = torch.bmm(colors, self._maps[geometry]).clamp_(0, 1)
        return images.view(-1, *self.image_shape)

    def _trace(self, indices: Tensor) -> Tensor:
        """Geometry numbers of indices, all of them traced on return."""
        geometry = indices.remainder(_GEOMETRIES)
        if not self._traced.all():
            # Which geometries these are is known only to the device: there, trace all and never wait again.
            wanted = geometry.unique().tolist() if indices.device.type == "cpu" else range(_GEOMETRIES)
            with self._lock:
                missing = [number for number in wanted if not self._traced[number]]
                for orientation in sorted({number % 15 for number in missing}):
                    view = View(orientation, self.image_shape[1], self.device)
                    for number in missing:
                        if number % 15 == orientation:
                            maps, labels = trace(number // 60, number // 15 % 4, view)
                            self._maps[number], self._labels[number] = maps, labels
                            self._traced[number] = True
        return geometry


class View:
    """The empty room as the camera sees it: one ray a subpixel, and what it meets.

    Args:
        orientation: Factor value in 0 .. 14.
        side: Image side in pixels.
        device: Where to trace.
    """

    def __init__(self, orientation: int, side: int, device: torch.device | str = "cpu"):
        self.side = side
        self.origin, self.rays = _camera(orientation, side, device)
        self.light = _light_samples(device)
        self.region, normal, self.distance = _hit_room(self.origin, self.rays)
        self.point = self.origin + self.distance * self.rays
        self.ambient = _openness(self.region, self.point)
        self.lamp = (normal * self.light).sum(0).clamp_(min=0)
        brightness = self.ambient * _room_light(self.lamp)
        floor, wall = (brightness * (self.region == region) for region in (0, 1))
        nothing = torch.zeros_like(floor)
        self.maps = torch.stack([floor, wall, nothing, nothing]).mean(1)

    def near(self, height: float, radius: float) -> Tensor:
        """Pixels that may see a ball around (0, 0, height), or its shadow; int64 (pixels,)."""
        center = _upright(height, self.rays)[:, 0]
        middle = _SUBPIXELS**2 // 2
        rays, point, light = self.rays[:, middle], self.point[:, middle], self.light[:, middle]
        to_center = center - self.origin[:, 0]
        along = (to_center * rays).sum(0)
        pixel = 2 * _HALF_VIEW / self.side
        seen = (to_center - along * rays).norm(dim=0) < radius + pixel * along
        to_center = center - point
        along = (to_center * light).sum(0)
        # Wider by the lamp's disc and by what a pixel covers of a floor seen at a slant.
        margin = 1.1 * _LIGHT_RADIUS * along.abs() + 4 * pixel * self.distance[middle]
        shaded = (to_center - along * light).norm(dim=0) < radius + margin
        return (seen | shaded).nonzero()[:, 0]


def trace(scale: int, shape: int, view: View, pixels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Ray-trace one object into a view of the room.

    Args:
        scale: Factor value in 0 .. 7.
        shape: Factor value in 0 .. 3.
        view: The room seen from one side.
        pixels: Where to trace, int64 (pixels,); default where the object or its shadow can be.

    Returns:
        How bright the colour of floor, wall, object and of white gloss appears in each pixel, float32
        (4, side * side), and the region at each pixel's centre, uint8 (side, side): 0 floor, 1 wall,
        2 object.
    """
    size = 0.75 + 0.5 * scale / 7
    if pixels is None:
        pixels = view.near(*(size * length for length in _BALLS[shape]))
    maps, middle = view.maps.clone(), _SUBPIXELS**2 // 2
    labels = view.region[middle].to(torch.uint8)
    # So few at a time, and here and below in operations that torch keeps to one thread: its pool works in
    # steps too small for it, and beside a busy neighbour each of them would wait for the scheduler.
    for part in pixels.split(800 if pixels.device.type == "cpu" else max(len(pixels), 1)):
        shades, is_object = _shade(shape, size, view, part)
        maps.index_copy_(1, part, shades)
        center = torch.where(is_object[middle], 2, labels.index_select(0, part))
        labels.index_copy_(0, part, center.to(torch.uint8))
    maps[0] *= _contact(shape, size, view.point[:, middle])
    return maps, labels.view(view.side, view.side)


def _shade(shape: int, size: float, view: View, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The four maps (4, pixels), and which of the rays (subpixels, pixels) meet the object."""
    rays, point, region, distance, ambient, lamp = (
        whole.index_select(-1, pixels)
        for whole in (view.rays, view.point, view.region, view.distance, view.ambient, view.lamp)
    )
    to_object, normal = _hit(shape, size, view.origin, rays)
    is_object = to_object < distance
    normal = torch.where(is_object, normal, 0)
    shadow = torch.isfinite(_hit(shape, size, point, view.light)[0])
    room = ambient * _room_light(lamp * ~shadow)
    # The object: the sky's half sphere, the lamp, and a little gloss.
    lamp = (normal * view.light).sum(0).clamp_(min=0)
    brightness = 0.43 + 0.11 * normal[2] + 0.46 * lamp
    between = view.light - rays
    gloss = 0.22 * ((normal * between).sum(0) / between.norm(dim=0)).clamp_(min=0) ** 48
    floor, wall = (room * ((region == which) & ~is_object) for which in (0, 1))
    return torch.stack([floor, wall, brightness * is_object, gloss * is_object]).mean(1), is_object


def _room_light(lamp: Tensor) -> Tensor:
    return 0.6 + 0.46 * lamp


def _camera(orientation: int, side: int, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """The camera's place (3, 1, 1) and unit ray directions (3, subpixels, pixels)."""
    azimuth = math.radians(-30 + 60 * orientation / 14)
    sin, cos = math.sin(azimuth), math.cos(azimuth)
    drop = _CAMERA_HEIGHT - _TARGET_HEIGHT
    length = math.hypot(_CAMERA_DISTANCE, drop)
    level, fall = _CAMERA_DISTANCE / length, drop / length
    forward = torch.tensor([-sin * level, cos * level, -fall], device=device)
    right = torch.tensor([cos, sin, 0.0], device=device)
    up = torch.tensor([-sin * fall, cos * fall, level], device=device)

    pixels = torch.arange(side, device=device)
    offsets = (torch.arange(_SUBPIXELS, device=device) + 0.5) / _SUBPIXELS
    screen = ((pixels + offsets[:, None]) * (2 / side) - 1) * _HALF_VIEW  # (subpixels, side)
    across = screen[None, :, None, :].expand(_SUBPIXELS, -1, side, -1).reshape(1, _SUBPIXELS**2, -1)
    down = screen[:, None, :, None].expand(-1, _SUBPIXELS, -1, side).reshape(1, _SUBPIXELS**2, -1)
    rays = forward[:, None, None] + across * right[:, None, None] - down * up[:, None, None]
    place = torch.tensor([_CAMERA_DISTANCE * sin, -_CAMERA_DISTANCE * cos, _CAMERA_HEIGHT], device=device)
    return place[:, None, None], rays / rays.norm(dim=0)


def _light_samples(device: torch.device | str) -> Tensor:
    """Unit directions to the lamp (3, subpixels, 1): each subpixel looks at its own spot of a small disc."""
    toward = torch.tensor(_LIGHT, dtype=torch.float64)
    toward = toward / toward.norm()
    side = torch.linalg.cross(toward, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
    side = side / side.norm()
    above = torch.linalg.cross(side, toward)
    spots = torch.arange(_SUBPIXELS**2, dtype=torch.float64)
    radius = _LIGHT_RADIUS * ((spots + 0.5) / len(spots)).sqrt()
    turn = spots * (math.pi * (3 - math.sqrt(5)))  # sunflower: even on the disc
    light = toward[:, None] + radius * (side[:, None] * turn.cos() + above[:, None] * turn.sin())
    return (light / light.norm(dim=0)).to(device, torch.float32)[:, :, None]


def _hit_room(origin: Tensor, rays: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Region (0 floor, 1 wall), unit normal into the room, and distance, of what each ray meets."""
    slope = math.sqrt(0.5)
    inward = torch.tensor([[0, 0, 1], [-slope, -slope, 0], [slope, -slope, 0]], device=rays.device)
    reach = torch.tensor([0.0, _CORNER * slope, _CORNER * slope], device=rays.device)
    gap = torch.tensordot(inward, origin, 1) + reach[:, None, None]
    speed = -torch.tensordot(inward, rays, 1)
    distance, plane = torch.where(speed > 0, gap / speed, math.inf).min(0)
    return plane.clamp(max=1), inward[plane].movedim(-1, 0), distance


def _openness(room: Tensor, point: Tensor) -> Tensor:
    """Share of ambient light that reaches a point of the room: less near the edges between its planes."""
    x, y, z = point
    # Distances to the two planes the point is not on.
    to_walls = (_CORNER - y - x.abs()) * math.sqrt(0.5), (_CORNER - y + x.abs()) * math.sqrt(0.5)
    first = torch.where(room == 0, to_walls[0], z)
    shade = (1 - 0.2 * torch.exp(-first.clamp(min=0))) * (1 - 0.2 * torch.exp(-to_walls[1].clamp(min=0)))
    return shade


def _contact(shape: int, size: float, point: Tensor) -> Tensor:
    """Share of light left on the floor close to the object's foot."""
    x, y = point[0], point[1]
    if shape == 0:
        half = size * _CUBE
        away = torch.hypot((x.abs() - half).clamp(min=0), (y.abs() - half).clamp(min=0))
    else:
        foot = {1: _CYLINDER[0], 2: 0.45 * _SPHERE, 3: 0.5 * _CAPSULE[0]}[shape] * size
        away = (torch.hypot(x, y) - foot).clamp(min=0)
    return 1 - 0.4 * torch.pow(math.exp(-1 / (0.28 * size)), away)


# Half sides and radii at scale 1 (radius, height); every object stands on the floor at the origin.
_CUBE = 0.92
_CYLINDER = (0.98, 2.0)
_SPHERE = 1.15
_CAPSULE = (0.8, 2.6)
# A ball around each, (height of its centre, radius), a little too large rather than too small.
_BALLS = ((0.92, 1.6), (1.0, 1.41), (1.15, 1.16), (1.3, 1.31))


def _hit(shape: int, size: float, origin: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to the object along each ray, infinite where it is missed, and the unit normal there."""
    if shape == 0:
        return _hit_cube(size * _CUBE, origin, rays)
    if shape == 1:
        return _hit_cylinder(size * _CYLINDER[0], size * _CYLINDER[1], origin, rays)
    if shape == 2:
        return _hit_capsule(size * _SPHERE, 2 * size * _SPHERE, origin, rays)
    return _hit_capsule(size * _CAPSULE[0], size * _CAPSULE[1], origin, rays)


def _hit_cube(half: float, origin: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    from_center = origin - _upright(half, rays)
    inverse = 1 / torch.where(rays == 0, 1e-12, rays)
    middle, width = -from_center * inverse, half * inverse.abs()
    enter, side = (middle - width).max(0)
    leave = (middle + width).min(0).values
    distance = torch.where((enter < leave) & (enter > 0), enter, math.inf)
    faces = torch.arange(3, device=rays.device)[:, None, None] == side
    return distance, -rays.sign() * faces


def _hit_cylinder(radius: float, height: float, origin: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    around = _meet_pipe(radius, origin, rays)
    z = origin[2] + around * rays[2]
    around = torch.where((z >= 0) & (z <= height), around, math.inf)
    lid = (height - origin[2]) / torch.where(rays[2] == 0, 1e-12, rays[2])
    on_lid = torch.hypot(origin[0] + lid * rays[0], origin[1] + lid * rays[1]) <= radius
    lid = torch.where(on_lid & (lid > 0), lid, math.inf)  # the floor hides the other end
    distance = torch.minimum(around, lid)
    point = origin + _finite(distance) * rays
    flat = lid < around
    normal = torch.stack([point[0] / radius * ~flat, point[1] / radius * ~flat, flat.to(rays.dtype)])
    return distance, normal


def _hit_capsule(radius: float, height: float, origin: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
    """An upright capsule; with height = 2 radius, a sphere."""
    low, high = radius, height - radius
    distance = _meet_ball(radius, origin - _upright(high, rays), rays)
    if high > low:
        around = _meet_pipe(radius, origin, rays)
        z = origin[2] + around * rays[2]
        around = torch.where((z >= low) & (z <= high), around, math.inf)
        distance = torch.minimum(distance, around)
        distance = torch.minimum(distance, _meet_ball(radius, origin - _upright(low, rays), rays))
    point = origin + _finite(distance) * rays
    normal = torch.stack([point[0], point[1], point[2] - point[2].clamp(low, high)])
    return distance, normal / radius


def _meet_ball(radius: float, origin: Tensor, rays: Tensor) -> Tensor:
    b = (origin * rays).sum(0)
    # Distance of the line from the centre, squared: exact where b^2 - |o|^2 + r^2 would cancel.
    aside = ((origin - b * rays) ** 2).sum(0)
    near = -b - _root(radius**2 - aside)
    return torch.where((aside < radius**2) & (near > 0), near, math.inf)


def _meet_pipe(radius: float, origin: Tensor, rays: Tensor) -> Tensor:
    a = (rays[0] ** 2 + rays[1] ** 2).clamp(min=1e-12)
    b = origin[0] * rays[0] + origin[1] * rays[1]
    square = b * b - a * (origin[0] ** 2 + origin[1] ** 2 - radius**2)
    near = (-b - _root(square)) / a
    return torch.where((square > 0) & (near > 0), near, math.inf)


def _root(square: Tensor) -> Tensor:
    return square.clamp(min=0) * square.clamp(min=1e-20).rsqrt()


def _upright(height: float, like: Tensor) -> Tensor:
    return torch.tensor([0.0, 0.0, height], device=like.device)[:, None, None]


def _finite(distance: Tensor) -> Tensor:
    return torch.where(torch.isfinite(distance), distance, 0)
