"""The page: one file that needs nothing, honest about what saw labels, worst things first."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from tasks.evaluate_sequence import PictureRow
from tasks.pages import curve, data_uri, percent, render
from tasks.pictures import jpeg_bytes
from tasks.report import render_report
from tasks.scores import FOREGROUND_CHOICES, EvaluatedModel, EvaluationReport, FrameScores, SequenceScores


def sequence(name: str, j: float) -> SequenceScores:
    values = FrameScores(j=(j,) * 6, f=(j / 2,) * 6, segments=((1,),) * 6, both_empty=(False,) * 6)
    return SequenceScores(
        name=name,
        num_frames=6,
        size=(480, 854),
        frames=tuple(range(6)),
        foreground=(1, 2),
        rule="motion",
        choices=dict.fromkeys(FOREGROUND_CHOICES, values),
    )


def report(*sequences: SequenceScores, benchmark: str = "davis16") -> EvaluationReport:
    model = EvaluatedModel(
        reference="models:/<b>me</b>@champion", weights_sha256="ab" * 32, experiment="tiny", num_segments=4
    )
    return EvaluationReport(
        benchmark=benchmark,
        model=model,
        sequences=sequences,
        optical_flow="dis",
        created="2026-01-02T03:04:05+00:00",
        seconds=1.5,
    )


def picture_row(frame: int, *titles: str) -> PictureRow:
    jpeg = jpeg_bytes(np.full((4, 6, 3), 99, np.uint8))
    return PictureRow(frame=frame, j=0.25, f=0.5, tiles=dict.fromkeys(titles, jpeg))


class Links(HTMLParser):
    """Collects what a page would fetch, and checks that its tags close in order."""

    VOID = frozenset({"meta", "img", "br", "line", "circle", "polyline"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.fetched += [value or "" for name, value in attrs if name in ("src", "poster", "srcset")]
        if tag == "link":
            self.fetched.append("link")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_one_file_without_scripts():
    page = render_report(report(sequence("dog", 0.5)), {"dog": [picture_row(2, "frame", "annotation")]})
    links = Links(page)
    assert "script" not in links.tags
    assert links.fetched
    assert all(address.startswith("data:image/jpeg;base64,") for address in links.fetched)
    assert "@import" not in page
    assert "url(" not in page
    assert "prefers-color-scheme: dark" in page


def test_label_free_headline_comes_before_all_that_saw_annotations():
    page = render_report(report(sequence("dog", 0.625)), {})
    body = page[page.index("<body>") :]
    assert body.index("no label seen") < body.index("62.5") < body.index("saw annotations")
    assert body.count("saw annotations") >= 3
    for choice in FOREGROUND_CHOICES.values():
        assert choice.title in body.lower()


def test_worst_sequence_and_worst_frame_come_first():
    rows = [picture_row(4, "frame"), picture_row(1, "frame")]
    page = render_report(report(sequence("dog", 0.9), sequence("libby", 0.2), sequence("cows", 0.5)), {"dog": rows})
    positions = [page.index(f'id="{name}"') for name in ("libby", "cows", "dog")]
    assert positions == sorted(positions)
    assert page.index("frame 4") < page.index("frame 1<")


def test_published_numbers_stand_beside_ours_with_their_source():
    page = render_report(report(sequence("dog", 0.5)), {})
    assert "92.9" in page  # GWM on dog
    assert "BMVC 2022" in page
    assert "best J on the labelled validation set" in page
    assert "published" not in render_report(report(sequence("fox", 0.5), benchmark="rendered"), {}).split("<body>")[1]


def test_published_average_is_left_out_where_a_sequence_is_not_published():
    page = render_report(report(sequence("dog", 0.5), sequence("bear", 0.5)), {})
    row = page[page.index("Tables 1 and 10") :]
    assert row[: row.index("79.5")].count("–") == 1


def test_published_numbers_are_averaged_as_the_headline_is():
    """Over frames, a sequence counts by its frames: all but the last, as GWM scores SegTrackv2."""
    short = replace(sequence("birdfall", 0.5), num_frames=7)  # its last frame has no mask: all six count
    found = report(short, sequence("girl", 0.5), benchmark="segtrackv2")
    page = render_report(replace(found, headline_protocol="gwm-frames", coverage="2 of 14 sequences"), {})
    row = page[page.index("Tables 1 and 11") :]
    assert f"{(6 * 67.8 + 5 * 84.5) / 11:.1f}" in row[: row.index("78.3")]
    assert "2 of 14 sequences" in page


def test_names_are_escaped():
    page = render_report(report(sequence("a<script>alert(1)</script>", 0.5)), {})
    assert "<script>" not in page
    assert "&lt;b&gt;me&lt;/b&gt;" in page


def test_row_without_a_picture_leaves_its_place_empty():
    rows = [picture_row(5, "frame"), picture_row(1, "optical flow", "frame")]
    page = render_report(report(sequence("dog", 0.5)), {"dog": rows})
    assert len(re.findall(r'<img src="data', page)) == 3
    assert "repeat(2, 1fr)" in page
    assert page.index('"title">optical flow') < page.index('"title">frame')
    Links(page)


def test_curve_of_a_long_clip_has_few_points():
    drawn = str(curve(np.linspace(0, 1, 50_000).tolist(), label="x & y", marks=[0, 49_999]))
    assert drawn.count(",") < 700
    assert "x &amp; y" in drawn
    assert drawn.count("<circle") == 2
    assert 'points="0.0,' in drawn


def test_helpers_and_templates_fail_loudly():
    assert percent(0.6254) == "62.5"
    assert data_uri(b"\xff\xd8") == "data:image/jpeg;base64,/9g="
    with pytest.raises(Exception, match="undefined"):
        render("clips.html", title="x")
