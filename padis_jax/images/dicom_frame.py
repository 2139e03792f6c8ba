"""What a compressed DICOM frame holds, by its own header: decoders make that much, whatever the file's header says.

RLE (PS3.5, annex G): segments of runs, header bytes n: n + 1 literals below 128, 257 - n copies above
JPEG, JPEG-LS:        the start-of-frame marker SOF has lines and samples per line (ITU-T T.81, B.2.2)
JPEG 2000:            the marker SIZ has the extent and the offset of the image (ITU-T T.800, A.5.1)
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

_SOF = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}


def check_frame(pydicom: Any, handle: BinaryIO, index: int, frames: int, shape: tuple[int, int], itemsize: int) -> None:
    """Reads a frame, undecoded, and holds its size against the header's; nothing for what is not compressed.

    Args:
      pydicom: the module.
      handle: the file, at its beginning.
      index: of the frame.
      frames: in the file.
      shape: (rows, columns) by the file's header.
      itemsize: bytes of a pixel.

    Raises:
      ValueError: if the frame is larger, or does not tell.
      Exception: whatever pydicom raises for a damaged file.
    """
    tags = ["ExtendedOffsetTable", "ExtendedOffsetTableLengths"]
    found = pydicom.dcmread(handle, stop_before_pixels=True, specific_tags=tags, force=True)
    syntax = found.file_meta.get("TransferSyntaxUID")
    if syntax is None or not syntax.is_encapsulated:
        return
    handle.seek(12, 1)  # tag, VR and length of Pixel Data
    offsets = [found.get(tag) for tag in tags]
    frame = pydicom.encaps.get_frame(
        handle, index, number_of_frames=frames, extended_offsets=tuple(offsets) if all(offsets) else None
    )
    if syntax == pydicom.uid.RLELossless:
        most = shape[0] * shape[1] * itemsize
        if _unpacked(frame, most) > most + 2 * itemsize:  # a segment may be padded
            raise ValueError(f"frame {index} unpacks to more than the {most} bytes of {shape[0]} x {shape[1]} pixels")
    elif (size := _declared(frame)) != shape:
        raise ValueError(f"frame {index} says {size} pixels, the header {shape}")


def _unpacked(frame: bytes, most: int) -> int:
    """Bytes that a frame of RLE unpacks to, or some number beyond `most`."""
    count = struct.unpack_from("<I", frame)[0]
    starts = [*struct.unpack_from(f"<{min(count, 15)}I", frame, 4), len(frame)]
    total = 0
    for at, end in zip(starts, starts[1:], strict=False):
        while at < min(end, len(frame)) and total <= 2 * most:
            run = frame[at]
            total += run + 1 if run < 128 else 257 - run if run > 128 else 0
            at += run + 2 if run < 128 else 2 if run > 128 else 1
    return total


def _declared(frame: bytes) -> tuple[int, int] | None:
    """(rows, columns) of JPEG, JPEG-LS or JPEG 2000; None for anything else."""
    if frame[:4] == b"\xff\x4f\xff\x51" and len(frame) >= 24:
        right, bottom, left, top = struct.unpack_from(">4I", frame, 8)
        return bottom - top, right - left
    at = 2 if frame[:2] == b"\xff\xd8" else len(frame)
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        kind = frame[at + 1]
        if kind in _SOF:
            rows, columns = struct.unpack_from(">HH", frame, at + 5)
            return rows, columns
        at += 1 if kind == 0xFF else 2 + int(struct.unpack_from(">H", frame, at + 2)[0])
    return None
