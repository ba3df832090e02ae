"""The corpus: inputs that are broken, strange or made to do harm, each with how it has to end.

Everything is made on the spot by this script, the same at each run. A case that ends in frames is strange and fine; one
that ends in a reason is a row of the dead-letter table.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasks.errors import RejectionReason
from tests.hostile import bytes_of
from tests.hostile.files import (
    NUM_FRAMES,
    append,
    bomb_in_video,
    changing_size,
    davis_root,
    different_frames,
    encode,
    frame_folder,
    image_bytes,
    new_folder,
    noise,
    save,
    with_attachment,
)
from tests.video_files import (
    cut_off,
    damage,
    numbered_frames,
    write_audio,
    write_audio_with_cover,
    write_video,
)

MAX_FRAMES = 200
"""What the corpus is ingested with, so that a clip with too many frames is quickly made."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One input: ``source`` is what is named or found, and ``ends`` a reason or the number of frames.

    before_decoding: what happens to it after it was planned. is_named: named as a source itself, not found in a folder.
    """

    source: Path
    ends: RejectionReason | int
    before_decoding: Callable[[], object] | None = None
    is_named: bool = False


def make_corpus(root: Path, canary: Path, port: int) -> list[Case]:
    """Write all inputs below ``root``; ``canary`` is a file outside of it, ``port`` a server of this machine."""
    makers = (_not_videos, _broken_videos, _strange_videos, _too_much, _images, _strange_images, _names, _special_files)
    return [case for maker in makers for case in maker(root, canary, port)]


def _not_videos(root: Path, canary: Path, port: int) -> list[Case]:
    folder = new_folder(root, "no_videos")
    gif, mpegts = folder / "gif.mp4", folder / "stream.mp4"
    Image.fromarray(numbered_frames(1)[0]).save(gif, "GIF")
    valid = write_video(root / "valid.mp4", different_frames(1)).read_bytes()
    (root / "valid.mp4").unlink()
    files = {
        **bytes_of.playlists(str(canary), port),
        "empty.mp4": b"",
        "one_byte.mp4": b"\0",
        "zip.mp4": bytes_of.zipped(valid),
        "wave.avi": b"RIFF\x24\0\0\0WAVEfmt " + bytes(20),
        "program.mkv": b"\x7fELF\2\1\1" + bytes(64),
        "shifted.mp4": b"\n" + valid,
    }
    mpegts.write_bytes(b"\x47" + bytes(187))
    paths = [gif, mpegts, *(save(folder / name, data) for name, data in files.items())]
    return [Case(source=path, ends="not_video") for path in paths]


def _broken_videos(root: Path, canary: Path, port: int) -> list[Case]:
    folder = new_folder(root, "broken")
    whole = write_video(root / "whole.mp4", noise(12), codec_options={"g": "4"})
    matroska = write_video(root / "whole.mkv", noise(12))
    avi = write_video(root / "whole.avi", noise(12))
    mp4 = whole.read_bytes()
    files = {
        "only_a_header.mp4": bytes_of.box(b"ftyp", b"isom\0\0\0\0isom"),
        "header_and_noise.mp4": bytes_of.box(b"ftyp", b"isom\0\0\0\0isom") + noise(1)[0].tobytes(),
        "no_index.mp4": bytes_of.without_index(mp4),
        "endless_box.mp4": bytes_of.endless_box(),
        "swollen_table.mp4": bytes_of.swollen_table(mp4),
        "matroska_head.mkv": matroska.read_bytes()[:64],
        "no_chunks.avi": b"RIFF\xff\xff\xff\xffAVI LIST" + bytes(64),
    }
    paths = [save(folder / name, data) for name, data in files.items()]
    paths += [cut_off(source, folder / f"cut_off{source.suffix}") for source in (whole, matroska, avi)]
    paths.append(damage(whole, folder / "corrupt_middle.mp4", num_bytes=len(mp4) // 4))
    sound = write_audio(folder / "sound.mp4")
    cover = write_audio_with_cover(folder / "cover.mp4")
    nested = save(folder / "nested_boxes.mp4", bytes_of.nested_boxes(5000))
    unknown = save(folder / "unknown_codec.mp4", mp4.replace(b"avc1", b"zzzz"))
    for path in (whole, matroska, avi):
        path.unlink()
    return [
        *(Case(source=path, ends="corrupt") for path in paths),
        *(Case(source=path, ends="no_video_stream") for path in (sound, cover, nested, unknown)),
        Case(source=write_video(folder / "one_frame.mp4", different_frames(2, 1)), ends="too_short"),
        Case(source=changing_size(folder / "size_changes.mkv"), ends="mixed_sizes"),
    ]


def _strange_videos(root: Path, canary: Path, port: int) -> list[Case]:
    folder = new_folder(root, "strange")
    mp4 = write_video(root / "plain.mp4", different_frames(3)).read_bytes()
    (root / "plain.mp4").unlink()
    uneven = [0, 33, 400, 433]
    mkv = encode(root / "times.mkv", different_frames(4), "mjpeg", "yuvj420p", times_ms=uneven).read_bytes()
    (root / "times.mkv").unlink()
    fragmented = {"movflags": "frag_keyframe+empty_moov"}
    odd = [frame[:47, :63] for frame in different_frames(5)]
    paths = [
        write_video(folder / "rotated.mp4", different_frames(6), rotation_degrees=90),
        write_video(folder / "odd_size.mp4", odd),
        write_video(folder / "uneven.mp4", different_frames(7), times_ms=uneven),
        write_video(folder / "a_million_a_second.mp4", different_frames(8), frame_rate=1_000_000),
        write_video(folder / "with_sound.mp4", different_frames(9), audio_seconds=1.0),
        write_video(folder / "fragmented.mp4", different_frames(10), container_options=fragmented),
        write_video(folder / "no_index.mkv", different_frames(11), container_options={"live": "1"}),
        encode(folder / "ten_bit.mp4", different_frames(12), "libx264", "yuv420p10le"),
        encode(folder / "interlaced.mp4", different_frames(13), "libx264", "yuv420p", {"x264-params": "tff=1"}),
        encode(folder / "alpha.mov", different_frames(14), "qtrle", "argb"),
        encode(folder / "alpha_png.mov", different_frames(15), "png", "rgba"),
        encode(folder / "grey.mkv", different_frames(16), "ffv1", "gray16le"),
        encode(folder / "raw.avi", different_frames(17), "rawvideo", "bgr24"),
        save(folder / "times_go_back.mkv", bytes_of.swapped_times(mkv, 33, 400)),
        save(folder / "pictures_elsewhere.mp4", bytes_of.outside_reference(mp4, str(canary))),
        with_attachment(folder / "attachment.mkv"),
        save(folder / "trailing_noise.mp4", mp4 + b"\0\0\0\0" + bytes(range(256))),
        save(folder / "mp4_named.avi", mp4 + bytes_of.box(b"free", b"1")),
    ]
    grows = write_video(folder / "grows.mp4", different_frames(18))
    vanishes = write_video(folder / "vanishes.mp4", different_frames(19))
    return [
        *(Case(source=path, ends=NUM_FRAMES) for path in paths),
        Case(source=grows, ends="changed", before_decoding=lambda: append(grows, bytes_of.box(b"free", bytes(999)))),
        Case(source=vanishes, ends="not_found", before_decoding=vanishes.unlink),
    ]


def _too_much(root: Path, canary: Path, port: int) -> list[Case]:
    folder = new_folder(root, "too_much")
    tiny = numbered_frames(1) * (MAX_FRAMES + 20)
    mp4 = write_video(root / "plain.mp4", different_frames(20)).read_bytes()
    raw = bytearray(encode(root / "raw.avi", different_frames(21), "rawvideo", "bgr24").read_bytes())
    header = raw.index(b"strf") + 8  # BITMAPINFOHEADER: size, width, height
    raw[header + 4 : header + 12] = (12_000).to_bytes(4, "little") * 2
    (root / "plain.mp4").unlink()
    (root / "raw.avi").unlink()
    paths = [
        write_video(folder / "many_frames.mp4", tiny, codec_options={"preset": "ultrafast"}),
        write_video(folder / "ten_years.mkv", different_frames(22), times_ms=[0, 33, 67, 315_360_000_000]),
        save(folder / "huge_frames.avi", bytes(raw)),
        bomb_in_video(folder / "bomb.mov", 12_000),
        save(folder / "many_tracks.mp4", bytes_of.many_tracks(mp4, 1500)),  # a decoder for each: more than LIMITS
    ]
    return [Case(source=path, ends="too_large") for path in paths]


def _images(root: Path, canary: Path, port: int) -> list[Case]:
    cases = []
    broken = {
        **bytes_of.image_tricks(str(canary), port),
        "text_bomb.png": bytes_of.text_bomb(8 << 20),
        "lying_header.png": bytes_of.lying_header(image_bytes("PNG"), 4000, 3000),
        "gif.png": image_bytes("GIF"),
        "cut_off.jpg": image_bytes("JPEG")[:400],
        "cut_off.png": image_bytes("PNG")[:-30],
        "empty.jpg": b"",
    }
    for number, (name, data) in enumerate(broken.items()):
        folder = frame_folder(root / f"frames_{name.replace('.', '_')}", 30 + number)
        save(folder / f"9_{name}", data)
        cases.append(Case(source=folder, ends="corrupt"))
    bomb = frame_folder(root / "frames_bomb", 60)
    save(bomb / "9.png", bytes_of.picture_bomb(9000))
    claims = frame_folder(root / "frames_claims", 61)
    save(claims / "9.png", bytes_of.lying_header(image_bytes("PNG"), 0x7FFFFFFF, 0x7FFFFFFF))
    masks = davis_root(root / "mask_bomb", 62)
    save(masks / "Annotations/clip/0.png", bytes_of.picture_bomb(9001))
    mixed = frame_folder(root / "frames_mixed", 63)
    Image.new("RGB", (66, 48)).save(mixed / "9.png")
    return [
        *cases,
        *(Case(source=folder, ends="too_large") for folder in (bomb, claims, masks / "JPEGImages/clip")),
        Case(source=mixed, ends="mixed_sizes"),
    ]


def _strange_images(root: Path, canary: Path, port: int) -> list[Case]:
    turned = Image.Exif()
    turned[0x0112] = 6
    still = {"append_images": [Image.new("RGB", (64, 48))], "save_all": True}
    kinds: dict[str, tuple[str, str, dict[str, Any]]] = {
        "exif": ("RGB", ".jpg", {"exif": turned}),
        "cmyk": ("CMYK", ".jpg", {}),
        "sixteen_bit": ("I;16", ".png", {}),
        "palette": ("P", ".png", {}),
        "animated_png": ("RGB", ".png", still),
        "animated_webp": ("RGB", ".webp", still),
        "alpha": ("RGBA", ".png", {}),
        "many_pages": ("RGB", ".tif", still),
    }
    cases = []
    for number, (name, (mode, extension, options)) in enumerate(kinds.items()):
        folder = new_folder(root, f"images_{name}")
        for index, frame in enumerate(different_frames(70 + number)):
            picture = Image.fromarray(frame)
            if mode == "I;16":
                picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
            else:
                picture = picture.convert(mode)
            picture.save(folder / f"{index}{extension}", **options)
        cases.append(Case(source=folder, ends=NUM_FRAMES))
    return cases


def _names(root: Path, canary: Path, port: int) -> list[Case]:
    folder = new_folder(root, "names")
    names = [
        "new\nline.mp4",
        "escape\x1b[2J\x07.mp4",
        "right\u202eto\u2066left.mp4",
        "quote'\"`$(id);&|.mp4",
        "-i.mp4",
        "%d*?[a].mp4",
        "file:concat:a|b.mp4",
        "x" * 240 + ".mp4",
        " .mp4",
        "con\u0301\u0301\u0301bining.MP4",
    ]
    cases = []
    for number, name in enumerate(names):
        written = write_video(root / "plain.mp4", different_frames(100 + number))
        cases.append(Case(source=written.rename(folder / name), ends=NUM_FRAMES))
    no_text = folder / os.fsdecode(b"no\xfftext.mp4")
    no_text.write_bytes(b"")
    return [*cases, Case(source=no_text, ends="forbidden")]


def _special_files(root: Path, canary: Path, port: int) -> list[Case]:
    folder = new_folder(root, "special")
    os.mkfifo(folder / "pipe.mp4")
    os.mkfifo(root.parent / "named_pipe.mp4")
    bound = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(folder)  # the path of a socket may have 108 bytes at most
    bound.bind("socket.mp4")
    os.chdir(here)
    bound.close()
    links = {"outside.mp4": canary, "device.mp4": Path("/dev/zero"), "folder_outside": canary.parent}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (folder / "nowhere.mp4").symlink_to(folder / "gone.mp4")
    (folder / "itself.mp4").symlink_to(folder / "itself.mp4")
    with_pipe, with_link = frame_folder(root / "frames_with_pipe", 120), frame_folder(root / "frames_with_link", 121)
    os.mkfifo(with_pipe / "9.png")
    (with_link / "9.png").symlink_to(canary)
    masks = davis_root(root / "mask_outside", 122)
    (masks / "Annotations/clip/0.png").symlink_to(canary)
    forbidden = [folder / name for name in ("pipe.mp4", "socket.mp4", *links)]
    forbidden += [with_pipe, with_link, masks / "JPEGImages/clip"]
    return [
        *(Case(source=path, ends="forbidden") for path in forbidden),
        *(Case(source=folder / name, ends="not_found") for name in ("nowhere.mp4", "itself.mp4")),
        Case(source=root.parent / "named_pipe.mp4", ends="forbidden", is_named=True),
        Case(source=Path("/dev/zero"), ends="forbidden", is_named=True),
    ]
