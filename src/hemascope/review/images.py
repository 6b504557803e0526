"""Images on disk, named by their content; nothing but their pixels is kept."""

import io
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from PIL import Image

from hemascope.store.files import write_bytes

_THUMBNAIL = 96  # pixels along the longer side
_FAST = 1  # PNG's compression level: a few percent larger, several times as fast


@dataclass(frozen=True)
class Encoded:
    """An image as it is stored: PNG, without EXIF, GPS, text or color profile."""

    sha256: str
    content: bytes
    thumbnail: bytes


def encoded(picture: Image.Image) -> Encoded:
    """An RGB image, ready to be stored."""
    clean = Image.frombytes("RGB", picture.size, picture.tobytes())  # pixels, and nothing else
    whole, small = io.BytesIO(), io.BytesIO()
    clean.save(whole, "PNG", compress_level=_FAST)
    clean.thumbnail((_THUMBNAIL, _THUMBNAIL))
    clean.save(small, "JPEG", quality=85)
    content = whole.getvalue()
    return Encoded(sha256(content).hexdigest(), content, small.getvalue())


class ImageStore:
    """The folder of all images of a station.

    Args:
        station: The station's folder, in which it is, made if need be, readable by its owner alone.
    """

    def __init__(self, station: Path) -> None:
        self._folder = station / "images"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def add(self, one: Encoded) -> None:
        """Stores an image, unless it is there.

        Raises:
            OutputError: If it cannot be written.
        """
        path = self.path(one.sha256)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        if not path.exists():
            write_bytes(self.path(one.sha256, ".jpg"), one.thumbnail)
            write_bytes(path, one.content)

    def path(self, digest: str, suffix: str = ".png") -> Path:
        """Where an image is, or with the suffix .jpg its small copy."""
        return self._folder / digest[:2] / f"{digest}{suffix}"

    def digests(self) -> set[str]:
        """What images there are."""
        return {path.stem for path in self._folder.glob("*/[0-9a-f]*.*")}

    def remove(self, digest: str) -> None:
        """Takes an image away."""
        for suffix in (".png", ".jpg"):
            self.path(digest, suffix).unlink(missing_ok=True)
