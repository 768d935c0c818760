"""The report as one self-contained page: pictures first, then every number, then how they came about."""

from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from edgeseq.report import names, quantities
from edgeseq.report.contents import ArtifactRow, Report
from edgeseq.report.distillation import comparisons, distillation
from edgeseq.report.headline import headline, is_on_gpu, speedup, teacher_percentile, teacher_precision
from edgeseq.report.look import Look
from edgeseq.report.matrix import LEGEND, footnote, matrices
from edgeseq.report.pictures import latencies, memories, sizes
from edgeseq.report.scatter import scatter

_WIDE_PX, _HALF_PX, _PHONE_PX = 1040, 496, 360


def render(report: Report) -> str:
    """The whole page; it refers to nothing outside itself."""
    template = _environment().get_template("page.html.jinja")
    return template.render(
        report=report,
        headline=headline(report),
        legend=[(Markup(swatch), text) for swatch, text in Look.of(report).legend(report)],  # our own SVG
        scatter=_both(lambda w: scatter(report, w, 0.4 * w if w > _HALF_PX else 330), _WIDE_PX),
        latencies=_both(lambda width: latencies(report, width), _WIDE_PX),
        sizes=_both(lambda width: sizes(report, width), _HALF_PX),
        memories=_both(lambda width: memories(report, width), _HALF_PX),
        distillation=_both(lambda width: distillation(report, width), _WIDE_PX),
        comparisons=comparisons(report),
        matrices=matrices(report),
        matrix_legend=LEGEND,
        by_student=_by_student(report),
        schemes=sorted({row.scheme for row in report.artifacts}, key=lambda name: (names.is_integer(name), name)),
        failed=[row for row in report.artifacts if not row.passed],
        not_timed=_not_timed(report),
        speedups={row.path: speedup(report.teacher, row) for row in report.artifacts},
        teacher_p90_ms=teacher_percentile(report.teacher, 90),
        teacher_p99_ms=teacher_percentile(report.teacher, 99),
        teacher_precision=teacher_precision(report.teacher) if report.teacher else "",
        is_on_gpu=report.teacher is not None and is_on_gpu(report.teacher),
    )


def _environment() -> Environment:
    """The templates' folder, with what turns numbers and names into words."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = (
        quantities.milliseconds,
        quantities.size,
        quantities.percent,
        quantities.points,
        quantities.error,
        quantities.decibels,
        quantities.times,
        names.short_scheme,
        names.explained_scheme,
        names.artifact,
        footnote,
    )
    environment.filters |= {word.__name__: word for word in words}
    return environment


def _both(draw: Callable[[float], str], wide: float) -> Markup:
    """A picture for a desk and one for a phone; the page's style shows one of them. Its text is escaped in `svg.py`."""
    drawn = ((draw(wide), "wide"), (draw(_PHONE_PX), "narrow"))
    return Markup("\n".join(svg.replace("<svg ", f'<svg class="{kind}" ', 1) for svg, kind in drawn if svg))


def _by_student(report: Report) -> dict[str, list[ArtifactRow]]:
    groups: dict[str, list[ArtifactRow]] = {}
    for row in report.artifacts:
        groups.setdefault(row.student, []).append(row)
    return groups


def _not_timed(report: Report) -> dict[str, list[ArtifactRow]]:
    """Reasons, each with the artifacts it is true of."""
    reasons: dict[str, list[ArtifactRow]] = {}
    for row in report.artifacts:
        if row.latency_ms_p50_1thread is None:
            reasons.setdefault(names.why_not_timed(row), []).append(row)
    return reasons
