"""What of a checkpoint's names went where, for people to read before they trust the import."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.errors import WeightsError

_NAMES_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class CheckpointReport:
    """A checkpoint's names against those of the network that it was recognised as.

    source: what was read. kind: what it was recognised as. matched: names that are used. unmatched: names that the
    pretraining or the released code left in the file and no network here needs. unexpected: names that such a file
    should not have. missing: what the network needs and the file has not. misshapen: what has another shape there.
    """

    source: str
    kind: str
    sha256: str
    matched: tuple[str, ...]
    unmatched: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    misshapen: tuple[str, ...] = ()

    def rows(self) -> list[dict[str, str | int]]:
        """Return one row per group of names: how many, and the first ones."""
        return [
            {"names": group, "count": len(names), "such as": ", ".join(names[:_NAMES_SHOWN])}
            for group, names in self._groups().items()
        ]

    def to_json(self) -> dict[str, object]:
        """Return the whole report as plain values."""
        groups = {group: list(names) for group, names in self._groups().items()}
        return {"source": self.source, "kind": self.kind, "sha256": self.sha256, **groups}

    def require_usable(self) -> None:
        """Raise WeightsError when something is missing, has another shape, or would change what is computed."""
        for group in ("missing", "misshapen", "unexpected"):
            if names := self._groups()[group]:
                more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
                raise WeightsError(
                    f"{self.source} can not be imported as {self.kind}: {group}: "
                    f"{', '.join(names[:_NAMES_SHOWN])}{more}; give the whole checkpoint of this network"
                )

    def _groups(self) -> dict[str, tuple[str, ...]]:
        return {
            "matched": self.matched,
            "unmatched": self.unmatched,
            "unexpected": self.unexpected,
            "missing": self.missing,
            "misshapen": self.misshapen,
        }
