"""How much one piece of footage may ask for before it is refused: one table, each number with its reason."""

from __future__ import annotations

from dataclasses import dataclass, fields

from tasks.errors import FootageError, InputError

_GIBIBYTE = 1 << 30
_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class DecodeLimits:
    """Limits on what is decoded; ``GWM_DECODE_<FIELD>`` in the environment overrides one.

    max_bytes: of a video file. 64 GiB: six hours at 25 Mbit/s, twice what cameras record at 1080p.
    max_image_bytes: of one image or mask. 256 MiB: an uncompressed picture of the largest size that is allowed.
    max_frame_pixels: 8192 x 8192, twice 8K; one such frame is 200 MB as RGB.
    max_frames: 6 hours at 60 frames per second, decoded frames counted, also those that ``fps`` leaves out.
    max_duration_seconds: 6 hours, the length at which recorders split files.
    cpu_seconds: of the process that decodes one clip; footage that is slower to decode than the longest that is
        allowed takes to play is refused.
    wall_seconds: that the caller waits for one clip in all, its own work between frames not counted.
    stall_seconds: that the caller waits for the next frame: a frame of 8K takes half a second on one core.
    memory_mb: address space beyond the program's own, which is 17 pictures (the most that H.264 refers to, and the
        one in the making) of 8K with 10 bits, and the picture as RGB twice: 3.0 GB.
    threads: of a decoder. 1, since an actor has one CPU, and since each thread holds pictures of its own.
    follow_links: whether links in a folder may lead out of the folder that was named as the source.

    Raises InputError for a value that is not above 0.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - pydantic's protocol, no field

    max_bytes: int = 64 * _GIBIBYTE
    max_image_bytes: int = _GIBIBYTE // 4
    max_frame_pixels: int = 8192 * 8192
    max_frames: int = 6 * 3600 * 60
    max_duration_seconds: float = 6 * _HOUR
    cpu_seconds: float = 6 * _HOUR
    wall_seconds: float = 6 * _HOUR
    stall_seconds: float = 60.0
    memory_mb: int = 4096
    threads: int = 1
    follow_links: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name != "follow_links" and not value > 0:
                raise InputError(f"{environment_name(field.name)}={value}: expected a number above 0")

    def check_bytes(self, num_bytes: int, name: str, *, is_image: bool = False) -> None:
        """Raise FootageError("too_large", ...) for a file beyond the limit."""
        field = "max_image_bytes" if is_image else "max_bytes"
        if num_bytes > getattr(self, field):
            raise FootageError("too_large", f"{name} has {num_bytes} bytes; {self.expected(field, 'bytes')}")

    def check_frame_size(self, width: int, height: int, name: str) -> None:
        """Raise FootageError("too_large", ...) for a frame beyond the limit on pixels."""
        if width * height > self.max_frame_pixels:
            raise FootageError(
                "too_large", f"{name} is {width}x{height}; {self.expected('max_frame_pixels', 'pixels')}"
            )

    def check_length(self, num_frames: int, seconds: float, name: str) -> None:
        """Raise FootageError("too_large", ...) for a clip with too many frames, or that lasts too long."""
        if num_frames > self.max_frames:
            raise FootageError("too_large", f"{name} has {num_frames} frames or more; {self.expected('max_frames')}")
        if not seconds <= self.max_duration_seconds:
            limit = self.expected("max_duration_seconds", "seconds")
            raise FootageError("too_large", f"{name} lasts {seconds:.6g} seconds or more; {limit}")

    def expected(self, field: str, unit: str = "") -> str:
        """What the limit expects, and how to raise it, for messages."""
        value = f"{getattr(self, field)} {unit}".strip()
        return f"expected at most {value} ({environment_name(field)})"


def environment_name(field: str) -> str:
    """The environment variable that overrides a limit."""
    return f"GWM_DECODE_{field.upper()}"
