"""Installs the frameworks that Niwaki is compared with, each in an environment of its own.

    python -m benchmarks.peers.install [PEER ...] [--environments FOLDER] [--again]

Environments that are complete are kept. All together need about 8 GB.
"""

import argparse
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.contestants import CONTESTANTS, ENVIRONMENTS, PEERS

DEFAULT = Path(".peers") / "environments"
_MARK = "installed.txt"


def environments_of(peers: Sequence[str]) -> list[str]:
    """The environments that `peers` need, each once."""
    found: dict[str, None] = {}
    for peer in peers:
        contestant = CONTESTANTS[peer]
        own = () if contestant.environment is None else (contestant.environment,)
        found |= dict.fromkeys([*own, *contestant.needs])
    return list(found)


def is_installed(folder: Path, name: str) -> bool:
    """Whether environment `name` in `folder` holds what it should now."""
    mark = folder / name / _MARK
    return mark.exists() and mark.read_text() == _text(name)


def install(folder: Path, name: str) -> None:
    """Makes environment `name` in `folder`. Raises CalledProcessError if pip fails."""
    shutil.rmtree(folder / name, ignore_errors=True)
    venv.create(folder / name, with_pip=True)
    pip = [str(folder / name / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *ENVIRONMENTS[name]], check=True)
    (folder / name / _MARK).write_text(_text(name))


def _text(name: str) -> str:
    return "".join(f"{requirement}\n" for requirement in ENVIRONMENTS[name])


def main() -> int:
    """The command line; 1 if something could not be installed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"of {', '.join(PEERS)}; all")
    parser.add_argument("--environments", type=Path, default=DEFAULT, metavar="FOLDER")
    parser.add_argument("--again", action="store_true", help="install complete ones anew too")
    given = parser.parse_args()
    unknown = sorted(set(given.peers) - set(PEERS))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known are {', '.join(PEERS)}")
    failed: list[str] = []
    for name in environments_of(given.peers or PEERS):
        if is_installed(given.environments, name) and not given.again:
            continue
        print(f"{name}: {', '.join(ENVIRONMENTS[name])}", file=sys.stderr)
        try:
            install(given.environments, name)
        except subprocess.CalledProcessError:
            failed.append(name)
    if failed:
        print(f"could not install {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
