"""python -m tests.fuzz [TARGET...] [--minutes N]: looks for inputs that break the rule, guided by the code they reach.

Needs atheris (`sh tests/setup.sh fuzz`). The suite does not: it only replays the corpus. The fuzzer prints a finding
and keeps it as corpus/TARGET/found-HASH.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

LONGEST = 4096
"""The most bytes of an input."""
SLOWER = 5.0
"""The factor by which code runs slower while atheris traces it."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all, one after another")
    parser.add_argument("--minutes", type=float, default=60.0, help="in all (default 60)")
    options = parser.parse_args()
    if len(options.targets) == 1:
        return fuzz(options.targets[0], round(options.minutes * 60))
    from tests.fuzz.targets import TARGETS

    names = options.targets or list(TARGETS)
    for name in names:
        # libFuzzer ends its process, and each parser begins with fresh memory.
        share = str(options.minutes / len(names))
        subprocess.run([sys.executable, "-m", "tests.fuzz", name, "--minutes", share], check=False)
    return 0


def fuzz(name: str, seconds: int) -> int:
    """Fuzz one parser for `seconds`; keep new inputs that reach new code only in a temporary folder."""
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        print("there is no atheris here; fix: sh tests/setup.sh fuzz", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["pccpipe"]):
        rule = importlib.import_module("tests.fuzz.rule")
    if name not in rule.TARGETS:
        print(f"there is no target {name}; these there are: {', '.join(rule.TARGETS)}", file=sys.stderr)
        return 2
    seen: set[str] = set()

    def one(data: bytes) -> None:
        try:
            rule.hold(name, data, SLOWER)
        except Exception as error:  # noqa: BLE001 - any exception is a finding
            _keep(name, data, error, seen, rule.CORPUS)

    with tempfile.TemporaryDirectory() as folder:
        words = [f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-timeout=60", "-rss_limit_mb=2048"]
        crashes = f"-artifact_prefix={rule.CORPUS / name}/found-"
        atheris.Setup(
            [sys.argv[0], *words, crashes, "-verbosity=0", "-print_final_stats=1", folder, str(rule.CORPUS / name)], one
        )
        atheris.Fuzz()
    return 0


def _keep(name: str, data: bytes, error: Exception, seen: set[str], corpus: Path) -> None:
    """Keep the first input for each place that raises."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{type(error).__name__} at {last.filename}:{last.lineno}"
    if place in seen:
        return
    seen.add(place)
    file = corpus / name / f"found-{hashlib.sha256(data).hexdigest()[:12]}"
    file.write_bytes(data)
    print(f"{name}: {place}: {str(error)[:200]}\n  {file}", flush=True)
    traceback.print_exception(error, limit=-4)


if __name__ == "__main__":
    sys.exit(main())
