"""A cross-check as lines for a terminal."""

from edgeseq.agreement import Check
from edgeseq.crosscheck import Report
from edgeseq.report import quantities


def render(report: Report) -> str:
    """What was run, what came out, and how far apart it is."""
    lines = [f"{report.file}: {report.engine}"]
    for check in report.checks:
        lines += _lines(check)
    if report.not_run:
        lines.append(f"  not run, since the other file has nothing like it: {', '.join(report.not_run)}")
    return "\n".join(lines)


def _lines(check: Check) -> list[str]:
    lines = [f"  signature {check.signature}"]
    for shapes in check.trials:
        lines.append(f"  ran {', '.join(f'{name} {list(shape)}' for name, shape in shapes.items())}")
    lines += [f"  out {name}: {what}" for name, what in check.outputs.items()]
    lines.append(f"  {check.not_finite or 'no'} value{'' if check.not_finite == 1 else 's'} not finite")
    for found in check.differences:
        verdict = f": {'passed' if found.passed else 'FAILED'} ({found.limit})" if found.limit else ""
        lines.append(
            f"  {found.between[0]} against {found.between[1]}: max abs error {quantities.error(found.max_abs_error)} "
            f"of {found.largest:.3g}, SQNR {found.sqnr_db:.1f} dB{verdict}"
        )
    return lines
