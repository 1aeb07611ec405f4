"""A picture of a guest's screen, as a notebook shows it.

QEMU 7.1 and later write PNG; older ones write PPM, which is packed into PNG here.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import re
import struct
import zlib
from typing import TYPE_CHECKING, Any

from qemu.qmp import ExecuteError

from ..error import MachineError

if TYPE_CHECKING:
    from .machine import Machine

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclasses.dataclass(frozen=True)
class Screenshot:
    """A picture of a guest's screen.

    Attributes:
        png: the picture's bytes.
        alt: what it shows, in words.
    """

    png: bytes = dataclasses.field(repr=False)
    alt: str

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        width, height = struct.unpack_from(">II", self.png, 16)  # the IHDR chunk comes first
        return width, height

    def _repr_html_(self) -> str:
        # JupyterLab shows a bare image/png without its alt text; in HTML it keeps it (data: is allowed for src).
        width, height = self.size
        data = base64.b64encode(self.png).decode()
        alt = html.escape(self.alt)
        return f'<img src="data:image/png;base64,{data}" alt="{alt}" width="{width}" height="{height}">'

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        return self.png, {"alt": self.alt}

    def __repr__(self) -> str:
        return f"<Screenshot: {self.alt}>"


def take_screenshot(vm: Machine) -> Screenshot:
    """Return a picture of the machine's screen.

    Raises:
        MachineError: when it has no screen.
    """
    try:
        try:
            data = vm.collect("screendump", {"format": "png"})
        except ExecuteError as error:
            if "'format'" not in str(error):
                raise
            data = vm.collect("screendump", {})
    except ExecuteError as error:
        raise vm.fault(
            MachineError, f"{vm.name} shows no screen ({error}). Give it a display device: '-vga', 'std'."
        ) from error
    png = data if data.startswith(_SIGNATURE) else png_of_ppm(data)
    width, height = struct.unpack_from(">II", png, 16)
    return Screenshot(png, f"Screen of {vm.name}, {width} by {height} pixels")


def png_of_ppm(ppm: bytes) -> bytes:
    """Pack a binary PPM picture (8 bits per channel) into PNG.

    Raises:
        ValueError: when it is not such a picture.

    Source: PNG specification (ISO/IEC 15948), sections 5 and 11.
    """
    header = re.match(rb"P6\s+(?:#[^\n]*\n\s*)*(\d+)\s+(\d+)\s+255\s", ppm)
    if header is None:
        raise ValueError(f"not a binary PPM picture with 255 levels: it begins with {ppm[:16]!r}")
    width, height = int(header[1]), int(header[2])
    pixels, stride = ppm[header.end() :], 3 * width
    if len(pixels) < stride * height:
        raise ValueError(f"a {width} by {height} PPM picture needs {stride * height} bytes, it has {len(pixels)}")
    rows = b"".join(b"\0" + pixels[row * stride : (row + 1) * stride] for row in range(height))
    truecolour = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return _SIGNATURE + _chunk(b"IHDR", truecolour) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
