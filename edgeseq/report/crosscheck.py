"""A cross-check as lines for a terminal."""

from edgeseq.crosscheck import Report
from edgeseq.report import quantities


def render(report: Report) -> str:
    """What was run, what came out, and how far apart it is."""
    lines = [f"{report.file}: {report.engine}"]
    others = f"; not run: {', '.join(report.not_run)}" if report.not_run else ""
    lines.append(f"  signature {report.signature}{others}")
    for shapes in report.trials:
        lines.append(f"  ran {', '.join(f'{name} {list(shape)}' for name, shape in shapes.items())}")
    lines += [f"  out {name}: {what}" for name, what in report.outputs.items()]
    lines.append(f"  {report.not_finite or 'no'} value{'' if report.not_finite == 1 else 's'} not finite")
    for found in report.differences:
        verdict = f": {'passed' if found.passed else 'FAILED'} ({found.limit})" if found.limit else ""
        lines.append(
            f"  {found.between[0]} against {found.between[1]}: max abs error {quantities.error(found.max_abs_error)} "
            f"of {found.largest:.3g}, SQNR {found.sqnr_db:.1f} dB{verdict}"
        )
    return "\n".join(lines)
