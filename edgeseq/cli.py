"""The command line: `edgeseq VERB ...`. Heavy packages are imported by the verb that needs them."""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeseq.errors import EdgeseqError, GateError, RequestError
from edgeseq.version import __version__

if TYPE_CHECKING:
    from edgeseq.limits import Limits
    from edgeseq.progress import Bars, Lines
    from edgeseq.report.contents import Report

FORMATS = ("onnx", "tflite", "coreml")
SCHEMES = ("fp32", "fp16", "dynamic_wi8_afp32")
INTERRUPTED = 130  # 128 + SIGINT, as shells say it
FILE_OPTIONS = ("against", "range", "tolerance", "second-engine")  # of verify, for a model file
RUN_OPTIONS = ("memory-limit", "time-limit")  # for a run folder, whose stages they bound

EPILOG = """\
exit codes: 0 passed, 1 a gate failed or work failed, 2 the request was wrong, 4 it could not be checked here
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    options = parser().parse_args(arguments)
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    if not options.verbose:
        warnings.simplefilter("ignore")
        logging.basicConfig(level=logging.ERROR)
    else:
        logging.basicConfig(level=logging.INFO)
    verb: Callable[[argparse.Namespace], int] = options.verb
    try:
        return verb(options)
    except EdgeseqError as error:
        print(f"edgeseq: {' '.join(str(error).split())}", file=sys.stderr)  # one line, whatever a script raised
        return error.exit_code
    except KeyboardInterrupt:
        print("edgeseq: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED


def parser() -> argparse.ArgumentParser:
    """Every verb and its options."""
    top = argparse.ArgumentParser(
        prog="edgeseq",
        description="Take trained Transformers and LSTMs to ONNX, TFLite and Core ML, and prove and measure what comes out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"edgeseq {__version__}")
    verbs = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = _verb(verbs, "run", "distil, quantize, convert, verify, measure and report, as a recipe says", _run)
    run.add_argument("recipe", metavar="RECIPE", help="the name of a recipe that comes with edgeseq, or a TOML file")
    run.add_argument("--output", metavar="DIR", type=Path, help="run folder (default: runs/RECIPE)")
    _add_limits(run)

    convert = _verb(verbs, "convert", "convert your own model, and prove that every file computes the same", _convert)
    convert.add_argument(
        "model",
        metavar="MODEL",
        type=Path,
        help="a script with get_model() and get_args(), a .pt2 or .keras file, a Hugging Face folder, or a run folder",
    )
    convert.add_argument(
        "--format", metavar="F", action="append", help=f"repeat for several (default: {', '.join(FORMATS)})"
    )
    convert.add_argument(
        "--scheme", metavar="S", action="append", help=f"repeat for several (default: {', '.join(SCHEMES)})"
    )
    convert.add_argument(
        "--option",
        metavar="FORMAT.NAME=VALUE",
        action="append",
        default=[],
        help="of a converter, such as coreml.target=ios18 (repeat)",
    )
    convert.add_argument("--output", metavar="DIR", type=Path, required=True, help="run folder to write")
    _add_limits(convert)

    verify = _verb(
        verbs,
        "verify",
        "run every artifact of a run folder again and compare it with PyTorch's outputs, or check one model file",
        _verify,
    )
    verify.add_argument(
        "folder", metavar="RUN|FILE", type=Path, help="a run folder, a model file or an artifact's folder"
    )
    verify.add_argument("--against", metavar="FILE", type=Path, help="another file of the same model, to compare with")
    verify.add_argument(
        "--range", metavar="INPUT=LOW:HIGH", action="append", default=[], help="random integers of an input (repeat)"
    )
    verify.add_argument("--tolerance", metavar="E", type=float, help="largest error, of outputs of order 1 or less")
    verify.add_argument("--second-engine", action="store_true", help="run a TFLite file in TensorFlow as well")
    _add_limits(verify)
    report = _verb(verbs, "report", "write a run folder's report anew and print its table", _report)
    report.add_argument("folder", metavar="RUN", type=Path, help="a run folder")
    report.add_argument("--markdown", action="store_true", help="print the tables as Markdown")
    bench = _verb(verbs, "bench", "measure every artifact of a run folder on this machine", _bench)
    bench.add_argument("folder", metavar="RUN", type=Path, help="a run folder")
    bench.add_argument("--runs", metavar="N", type=int, default=200, help="counted inferences a process (default: 200)")
    bench.add_argument("--rounds", metavar="N", type=int, default=2, help="processes an artifact (default: 2)")
    _add_limits(bench)

    inspect = _verb(verbs, "inspect", "say what a model file holds and what can run it, without running it", _inspect)
    inspect.add_argument("artifact", metavar="ARTIFACT", type=Path, help="a model file, or an artifact's folder")

    _verb(verbs, "doctor", "say what can run here, what is missing, and the command that mends it", _doctor)
    return top


def _verb(verbs: Any, name: str, what: str, function: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = verbs.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")
    added.add_argument("--json", metavar="FILE", type=Path, help="also write the result as JSON")
    added.add_argument("--verbose", action="store_true", help="show warnings of third-party packages")
    added.set_defaults(verb=function)
    return added


def _add_limits(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--memory-limit", metavar="M", help="of each stage: 4GB, 50%% or none (default: 80%% of the machine's memory)"
    )
    verb.add_argument("--time-limit", metavar="T", help="of each stage: 90s, 30m, 2h or none (default: none)")


def _limits(options: argparse.Namespace) -> "Limits":
    from edgeseq.limits import Limits

    return Limits.parse(options.memory_limit, options.time_limit)


def _run(options: argparse.Namespace) -> int:
    from edgeseq import pipeline, recipe

    loaded = recipe.load(options.recipe)
    root = options.output or Path("runs") / loaded.name
    limits = _limits(options)
    with _watcher() as watcher:
        report = pipeline.run(loaded, root, watcher, limits)
    return _conclude(report, root, options)


def _convert(options: argparse.Namespace) -> int:
    from edgeseq import pipeline

    formats, schemes = options.format or FORMATS, options.scheme or SCHEMES
    given = pipeline.parsed_options(options.option)
    limits = _limits(options)
    with _watcher() as watcher:
        report = pipeline.convert(
            options.model, _once(formats), _once(schemes), options.output, watcher, limits, options=given
        )
    return _conclude(report, options.output, options)


def _verify(options: argparse.Namespace) -> int:
    from edgeseq import inspection, pipeline

    is_file = inspection.is_model(options.folder)
    _refuse_given(options, RUN_OPTIONS if is_file else FILE_OPTIONS, "a run folder" if is_file else "a model file")
    if is_file:
        return _check_file(options)
    limits = _limits(options)
    with _watcher() as watcher:
        report = pipeline.verify(options.folder, watcher, limits)
    return _conclude(report, options.folder, options)


def _refuse_given(options: argparse.Namespace, names: Sequence[str], kind: str) -> None:
    """Refuse options that would do nothing, since they are for another kind of thing than what was given."""
    values = {f"--{name}": getattr(options, name.replace("-", "_")) for name in names}
    given = [name for name, value in values.items() if value is not None and value is not False and value != []]
    if given:
        raise RequestError(
            f"{', '.join(given)} cannot be used with '{options.folder}', which is not {kind}; leave it out, or give {kind}"
        )


def _check_file(options: argparse.Namespace) -> int:
    """One model file, without PyTorch's recorded outputs."""
    import json

    from edgeseq import crosscheck
    from edgeseq.report.crosscheck import render

    report = crosscheck.check(
        options.folder,
        options.against,
        ranges=crosscheck.parsed_ranges(options.range),
        tolerance=options.tolerance,
        second_engine=options.second_engine,
    )
    print(render(report))
    if options.json:
        _write(options.json, json.dumps(report.to_json(), indent=1) + "\n")
    if report.failures:
        raise GateError(f"'{options.folder}' is out of tolerance: {'; '.join(report.failures)}")
    return 0


def _bench(options: argparse.Namespace) -> int:
    from edgeseq import pipeline
    from edgeseq.measure import Protocol
    from edgeseq.recipe import Measuring

    if options.runs < 1 or options.rounds < 1:
        raise RequestError(f"--runs and --rounds must be at least 1, not {options.runs} and {options.rounds}")
    measuring = Measuring(rounds=options.rounds, protocol=Protocol(runs=options.runs, min_runs=min(options.runs, 20)))
    limits = _limits(options)
    with _watcher() as watcher:
        report = pipeline.bench(options.folder, measuring, watcher, limits)
    return _conclude(report, options.folder, options)


def _report(options: argparse.Namespace) -> int:
    from edgeseq import pipeline
    from edgeseq.report import markdown

    report = pipeline.report(options.folder)
    if options.markdown:
        print(markdown.render(report), end="")
        return 0
    return _conclude(report, options.folder, options)


def _inspect(options: argparse.Namespace) -> int:
    import json

    from edgeseq import inspection
    from edgeseq.report.inspection import render

    found = inspection.inspect(options.artifact)
    print(render(found))
    if options.json:
        _write(options.json, json.dumps(found.to_json(), indent=1) + "\n")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from edgeseq import doctor

    findings = doctor.examine()
    print(doctor.render(findings))
    if options.json:
        _write(options.json, doctor.to_json(findings))
    return 0


def _watcher() -> "Bars | Lines":
    from edgeseq import progress

    return progress.watcher()


def _conclude(report: "Report", root: Path, options: argparse.Namespace) -> int:
    """Print the table and where everything lies; 1 if an artifact is out of tolerance."""
    from edgeseq.report import table

    print(table.render(report, width=_columns(), color=sys.stdout.isatty()))
    print(f"Report: {root / 'report.html'}   All of it: {root}")
    if options.json:
        _write(options.json, report.to_json())
    failed = [row for row in report.artifacts if not row.passed]
    if failed:
        listed = "; ".join(f"{row.path}: {', '.join(row.failures)}" for row in failed)
        raise GateError(f"{len(failed)} of {len(report.artifacts)} artifacts are out of tolerance: {listed}")
    return 0


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size(fallback=(140, 40)).columns


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise RequestError(f"'{path}' cannot be written: {error.strerror}") from error


def _once(names: Sequence[str]) -> tuple[str, ...]:
    """Each name once, in order."""
    return tuple(dict.fromkeys(names))


def script() -> None:
    """The installed command."""
    sys.exit(main())
