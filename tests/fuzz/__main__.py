"""``python -m tests.fuzz --seconds 60``: fuzzes each target for so long, and prints what that came to.

Each runs in a process of its own, whose memory is bounded: guided by coverage where atheris is installed, else with
plain mutants. What a target raises, an input that takes too long, and too much memory fail the command; the input is
printed, and kept as a file where atheris found it.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MEMORY_MAX = 512
"""MiB that a target's process may hold: with the interpreter, the coverage's counters and the inputs kept."""
INPUT_SECONDS_MAX = 10
"""How long one input may take: far more than any needs, far less than a hang."""


def fuzz_guided(name: str, seconds: int) -> None:
    """Fuzz one target by coverage, in this process, until the time is over; atheris ends the process."""
    import atheris  # noqa: PLC0415 - only where it is installed

    with atheris.instrument_imports(include=["quorate"]):
        from tests.fuzz import targets  # noqa: PLC0415 - instrumented as it is imported
    target = targets.TARGETS[name]
    with tempfile.TemporaryDirectory(prefix="quorate-corpus-") as corpus:
        for number, seed in enumerate(target.seeds()):
            Path(corpus, f"seed-{number}").write_bytes(seed)
        limits = [f"-max_total_time={seconds}", f"-rss_limit_mb={MEMORY_MAX}", f"-timeout={INPUT_SECONDS_MAX}"]
        found = f"-artifact_prefix={tempfile.gettempdir()}/quorate-fuzz-{name}-"
        atheris.Setup([sys.argv[0], corpus, *limits, "-max_len=4096", "-print_final_stats=1", found], target.run)
        atheris.Fuzz()


def fuzz_plain(name: str, seconds: int) -> None:
    """Fuzz one target with plain mutants, in this process, and print what libFuzzer would."""
    import resource  # noqa: PLC0415 - not on every platform

    from tests.fuzz import mutation, targets  # noqa: PLC0415 - as the other driver does

    def hangs(_signal: int, _frame: object) -> None:
        raise TimeoutError(f"an input takes more than {INPUT_SECONDS_MAX} s")

    target = targets.TARGETS[name]

    def run(content: bytes) -> None:
        signal.alarm(INPUT_SECONDS_MAX)
        target.run(content)

    signal.signal(signal.SIGALRM, hangs)
    begun = time.monotonic()
    count = mutation.run_mutants(targets.Target(run, target.seeds), seed=int(time.time()), seconds=seconds)
    signal.alarm(0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    targets.clean_up()
    print(f"stat::number_of_executed_units: {count}")
    print(f"stat::average_exec_per_sec: {int(count / max(time.monotonic() - begun, 0.001))}")
    print(f"stat::peak_rss_mb: {peak}")
    if peak > MEMORY_MAX:
        raise SystemExit(f"{peak} MiB were held: at most {MEMORY_MAX} may be")


def fuzz_all(names: list[str], seconds: int) -> int:
    """Fuzz targets one after the other, each in a process of its own; give the exit status."""
    is_guided = importlib.util.find_spec("atheris") is not None
    driver = "guided by coverage (atheris)" if is_guided else "plain mutants (atheris is not installed)"
    print(f"{driver}, {seconds} s each")
    print(f"{'target':<12}{'inputs':>12}{'a second':>10}{'features':>10}{'peak MiB':>10}")
    failing = False
    for name in names:
        command = [sys.executable, "-m", "tests.fuzz", "--target", name, "--seconds", str(seconds), "--here"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        said = done.stdout + done.stderr
        features = re.findall(r"\bft: (\d+)", said)
        numbers = [found_in(said, f"stat::{what}") for what in ("number_of_executed_units", "average_exec_per_sec")]
        peak = found_in(said, "stat::peak_rss_mb")
        print(
            f"{name:<12}{numbers[0]:>12}{numbers[1]:>10}{features[-1] if features else '-':>10}{peak:>10}", flush=True
        )
        if done.returncode != 0:
            failing = True
            print(said[-4000:])
    return 1 if failing else 0


def found_in(text: str, what: str) -> str:
    """Give the number that a text says after ``what:``; a question mark where it says none."""
    found = re.search(rf"{what}: *(\d+)", text)
    return found[1] if found else "?"


def main() -> int:
    """Run the command."""
    names = ["frames", "connection", "core", "records", "snapshots", "files", "calls"]
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz whatever reads bytes.")
    parser.add_argument("--seconds", type=int, default=60, help="how long for each target (60)")
    parser.add_argument("--target", choices=names, action="append", help="this one; may be repeated (all)")
    parser.add_argument("--here", action="store_true", help="in this process; for one target")
    chosen = parser.parse_args()
    if not chosen.here:
        return fuzz_all(chosen.target or names, chosen.seconds)
    if importlib.util.find_spec("atheris") is not None:
        fuzz_guided(chosen.target[0], chosen.seconds)
    else:
        fuzz_plain(chosen.target[0], chosen.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
