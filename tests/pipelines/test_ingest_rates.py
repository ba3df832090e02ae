from __future__ import annotations

from pipelines.ingest_rates import IngestRates
from tasks.ingest import IngestProgress, VideoOutcome


def _ended(num_done: int, status: str, num_frames: int = 0, num_bytes: int = 0) -> IngestProgress:
    outcome = VideoOutcome(
        source="a.mp4",
        clip="a",
        status=status,  # type: ignore[arg-type]
        reason="new",
        explanation="new",
        num_frames=num_frames,
        num_bytes=num_bytes,
    )
    return IngestProgress(num_done=num_done, num_total=10, outcome=outcome)


def test_the_line_tells_rates_refusals_and_what_is_left() -> None:
    now = 100.0
    rates = IngestRates(lambda: now)
    assert str(rates) == "0.0 frames/s, 0.0 MB/s, 0 rejected"
    now = 110.0
    assert rates.line(_ended(1, "ingested", 50, 20_000_000)) == "5.0 frames/s, 2.0 MB/s, 0 rejected, 0:01:30 left, a"
    now = 120.0
    assert rates.line(_ended(2, "rejected")) == "2.5 frames/s, 1.0 MB/s, 1 rejected, 0:01:20 left, a"
    rates.line(_ended(10, "ingested", 50))
    assert str(rates) == "5.0 frames/s, 1.0 MB/s, 1 rejected"
