"""Where masks come from, written beside them and into every one of them, so that a mask can be traced.

::

    out/<clip>/provenance.json     model, its training, the footage and its hash
    out/<clip>/masks/NNNNN.png     the same as a tEXt chunk named CHUNK, with the number of the frame

The chunk makes a single PNG traceable after it was moved, renamed or sent. It holds no time of its own, so the same
footage and model give the same bytes; any tool that rewrites a PNG may drop it, and then only the folder tells.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.code_version import code_version
from tasks.errors import InputError
from tasks.footage import FootageItem
from tasks.frame_images import load_picture
from tasks.identity import video_id
from tasks.model_package import LoadedModel, Provenance

PROVENANCE_FILE = "provenance.json"
CHUNK = "gwm"
"""Keyword of the tEXt chunk (PNG specification, 11.3.4.3)."""

_SIGNATURE_AND_HEADER_BYTES = 8 + 25  # of every PNG: 8 bytes of signature, then IHDR with 13 bytes of data
_CHUNK_TYPE = b"tEXt"


class MaskModel(BaseModel):
    """Which model drew the masks.

    reference: as it was named, an alias replaced by the version that bore it. uri: folder that it was read from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reference: str
    uri: str
    weights_sha256: str
    experiment: str
    provenance: Provenance


class MaskProvenance(BaseModel):
    """Everything that a clip's masks were made of.

    source_sha256: identity of the footage, the ``video_id`` that a dataset would know it by. adapted_steps: updates on
    this very clip before it was segmented; None without adaptation. crf: settings of the dense CRF, if any.
    frame: in the chunk of a mask only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    project_version: str
    clip: str
    source: str
    source_sha256: str
    model: MaskModel
    adapted_steps: int | None = None
    crf: str | None = None
    frame: int | None = None

    def to_json(self) -> str:
        """Return it as JSON of ASCII letters, the same for the same content."""
        return json.dumps(self.model_dump(mode="json", exclude_none=True), indent=1)

    def of_frame(self, frame: int) -> str:
        """Return what the mask of one frame bears."""
        named = self.model_copy(update={"frame": frame})
        return json.dumps(named.model_dump(mode="json", exclude_none=True), separators=(",", ":"))


def provenance_of(
    item: FootageItem, model: LoadedModel, reference: str | None, *, adapted_steps: int | None, crf: str | None
) -> MaskProvenance:
    """Say what the masks of ``item`` will be made of; reads the footage once, for its hash.

    reference: how the model was named; None for the folder it was read from. Raises FootageError when the footage can
    not be read.
    """
    return MaskProvenance(
        project_version=code_version(),
        clip=item.clip,
        source=item.uri,
        source_sha256=video_id(item),
        model=MaskModel(
            reference=reference or model.uri,
            uri=model.uri,
            weights_sha256=model.weights_sha256,
            experiment=model.experiment.name,
            provenance=model.provenance,
        ),
        adapted_steps=adapted_steps,
        crf=crf,
    )


def with_chunk(png: bytes, text: str) -> bytes:
    """Return a PNG with ``text`` (ASCII) as its tEXt chunk CHUNK, behind the header; the picture stays as it is."""
    data = CHUNK.encode() + b"\0" + text.encode("ascii")
    checksum = zlib.crc32(_CHUNK_TYPE + data)
    chunk = struct.pack(">I", len(data)) + _CHUNK_TYPE + data + struct.pack(">I", checksum)
    return png[:_SIGNATURE_AND_HEADER_BYTES] + chunk + png[_SIGNATURE_AND_HEADER_BYTES:]


def read_chunk(png: bytes, name: str) -> MaskProvenance | None:
    """Return what a mask bears; None when it bears nothing of ours.

    Raises FootageError when ``png`` is no PNG, InputError when what it bears can not be understood.
    """
    text = getattr(load_picture(png, name, formats=("PNG",)), "text", {}).get(CHUNK)
    return None if text is None else parse_provenance(text, name)


def parse_provenance(text: str | bytes, name: str) -> MaskProvenance:
    """Read what ``to_json`` or ``of_frame`` wrote; raises InputError naming ``name`` when it is nothing of the kind."""
    try:
        return MaskProvenance.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"{name}: its provenance can not be understood ({'.'.join(map(str, first['loc']))}: {first['msg']}); "
            "expected what gwm segment writes, of this release or an earlier one"
        ) from error
