"""All that the page says of an evaluation, in its order."""

from __future__ import annotations

from pathlib import Path

from audiobat.errors import AudiobatError
from audiobat.evaluation.detections.result import JSON
from audiobat.evaluation.report.detections.evaluation import Evaluation
from audiobat.evaluation.report.detections.figures import CONFUSED, THRESHOLD, confusion_of_events, curves_of
from audiobat.evaluation.report.detections.mistakes import mistakes_html
from audiobat.evaluation.report.detections.tables import about_html, classes_html, levels_html, recordings_html
from audiobat.evaluation.report.detections.timeline import timeline_html
from audiobat.evaluation.report.style import save
from audiobat.evaluation.report.web.html import Exhibit, exhibit_html, section_html


def detection_sections(found: Evaluation, out: Path) -> tuple[list[str], list[str]]:
    """The sections of the page OUT/index.html, and its scripts; figures and sounds are written into OUT.

    Args:
        found: the evaluation.
        out: folder of the page.

    Raises:
        AudiobatError: an evaluation.json that is damaged.
    """
    figures = (
        ("curves", curves_of, "Thresholds", THRESHOLD),
        ("confusion", confusion_of_events, "Confusion matrix", CONFUSED),
    )
    try:
        exhibits = []
        for name, draw, heading, caption in figures:
            figure = draw(found)
            if figure is not None:
                exhibits.append(exhibit_html(Exhibit(save(figure, out / "figures", name), heading, caption)))
        timeline = timeline_html(found, out)
        sections = [
            section_html("Results", levels_html(found)),
            timeline,
            mistakes_html(found, out),
            section_html("Classes", classes_html(found)),
            section_html("Recordings", recordings_html(found)),
            *exhibits,
            section_html("What was evaluated", about_html(found)),
        ]
        return sections, ["timeline.js"] if timeline else []
    except (LookupError, TypeError, AttributeError, ValueError) as error:  # a field that lacks, or is of another kind
        problem = f"{type(error).__name__}: {error}"
        raise AudiobatError(f"{found.folder / JSON} is damaged ({problem}): evaluate again.") from None
