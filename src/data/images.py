"""What the bytes of an image say of it before it is decoded."""

from __future__ import annotations

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
PNG_FRAME = 12  # bytes of a chunk besides its data: length, type, checksum


def is_cut_off_png(content: bytes) -> bool:
    """Whether this is a PNG with a chunk that reaches past its end.

    OpenCV makes room for as many bytes as a chunk claims, up to four gigabytes, before it finds that out.
    """
    at, kind = len(PNG), b""
    while content.startswith(PNG) and at < len(content) and kind != b"IEND":
        kind = content[at + 4 : at + 8]
        at += PNG_FRAME + int.from_bytes(content[at : at + 4], "big")
    return content.startswith(PNG) and at > len(content)


def jpeg_channels(content: bytes) -> int:
    """How many components the frame of a JPEG has; 0 if it is something else."""
    at = len(JPEG) if content.startswith(JPEG) else len(content)
    while at + 9 < len(content) and content[at] == 0xFF:
        marker = content[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return content[at + 9]
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return 0
