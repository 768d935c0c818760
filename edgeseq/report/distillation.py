"""What distillation bought: the control that never saw the teacher, the student, and the teacher, on every test set."""

from collections.abc import Iterator
from dataclasses import dataclass

from edgeseq.report.contents import Report
from edgeseq.report.look import TEACHER, Look
from edgeseq.report.quantities import percent, significant
from edgeseq.report.rows import Frame, Row
from edgeseq.report.svg import Drawing, Scale

_TEXT_PX = 52  # room for an accuracy beside its marker


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Accuracies of one student on one test set."""

    student: str
    test_set: str
    control_accuracy: float | None
    accuracy: float
    teacher_accuracy: float | None


def comparisons(report: Report) -> list[Comparison]:
    """For each student the test set first, then those under a shift of domain."""
    teacher = report.teacher
    found = []
    for name, student in report.students.items():
        found.append(
            Comparison(
                student=name,
                test_set="test set",
                control_accuracy=student.control_accuracy,
                accuracy=student.accuracy,
                teacher_accuracy=teacher.accuracy if teacher else None,
            )
        )
        found += [
            Comparison(
                student=name,
                test_set=test_set,
                control_accuracy=None,
                accuracy=accuracy,
                teacher_accuracy=teacher.shift_accuracy.get(test_set) if teacher else None,
            )
            for test_set, accuracy in student.shift_accuracy.items()
        ]
    return found


def distillation(report: Report, width: float) -> str:
    """The picture; empty without a student that has anything to be compared with."""
    pairs = list(_rows(report))
    if not pairs:
        return ""
    rows = [row for row, _ in pairs]
    frame = Frame.of(rows, width=width, describe="Accuracy of control, student and teacher")
    values = [value for row in rows for value in row.values]
    margin = max(0.02 * (max(values) - min(values)), 0.002)
    x = Scale(
        low=min(values) - margin, high=max(values) + margin, start=frame.left + _TEXT_PX, end=frame.right - _TEXT_PX
    )
    frame.draw_scale(x, "accuracy, %", shown=lambda value: significant(100 * value))
    looks = Look.of(report)
    compared = iter([comparison for _, comparison in pairs if comparison])
    for (_, y), comparison in zip(frame.placed(), compared, strict=True):
        _draw(frame.drawing, comparison, looks.shape(comparison.student), x, y)
    return frame.finish()


def _rows(report: Report) -> Iterator[tuple[Row, Comparison | None]]:
    heading = None
    for one in comparisons(report):
        named = (("control", one.control_accuracy), ("student", one.accuracy), ("teacher", one.teacher_accuracy))
        known = [(name, value) for name, value in named if value is not None]
        if len(known) < 2:
            continue
        if one.student != heading:
            heading = one.student
            yield Row(label=heading), None
        told = f"{one.student} on {one.test_set}: " + ", ".join(f"{name} {percent(value)}" for name, value in known)
        yield Row(label=one.test_set, values=tuple(value for _, value in known), tooltip=told), one


def _draw(drawing: Drawing, one: Comparison, shape: int, x: Scale, y: float) -> None:
    if one.control_accuracy is not None:
        drawing.line(
            x(one.control_accuracy), y, x(one.accuracy), y, "gain" if one.accuracy >= one.control_accuracy else "loss"
        )
    if one.teacher_accuracy is not None:
        drawing.line(x(one.accuracy), y, x(one.teacher_accuracy), y, "rest")
    marks = [
        (value, kind, number)
        for value, kind, number in (
            (one.teacher_accuracy, "ink light paper", TEACHER),
            (one.control_accuracy, "outline paper", shape),
            (one.accuracy, "gained", shape),
        )
        if value is not None
    ]
    for value, kind, number in marks:
        drawing.marker(x(value), y, 6, number, kind, tooltip=percent(value))
    # The outer two are labelled beside their markers and the one between them above, so that no two labels can meet.
    lowest, *between, highest = sorted(value for value, _, _ in marks)
    drawing.text(x(lowest) - 10, y + 4, percent(lowest, 1), kind="small", anchor="end")
    drawing.text(x(highest) + 10, y + 4, percent(highest, 1), kind="small")
    for value in between:
        drawing.text(x(value), y - 8, percent(value, 1), kind="small", anchor="middle")
