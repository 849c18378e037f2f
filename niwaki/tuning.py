"""Which kernels measurements chose, in a small file that can be kept beside the model."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from niwaki.backends.targets import Target
from niwaki.files import write_atomically
from niwaki.ir.errors import UsageError

_FORMAT = 1


@dataclass(frozen=True, order=True)
class Machine:
    """What choices hold for."""

    cpu: str
    """LLVM's name of the core."""
    features: str
    """A hash of LLVM's feature string."""
    threads: int
    tools: str
    """Versions of what makes the code."""

    @staticmethod
    def of(target: Target) -> "Machine":
        """That `target` stands for, with the tools of this process."""
        features = sha256(target.features.encode()).hexdigest()[:16]
        llvm_version = ".".join(map(str, llvm.llvm_version_info))
        tools = [*(f"{name} {version(name)}" for name in ("niwaki", "llvmlite"))]
        return Machine(
            target.cpu, features, target.threads, ", ".join([*tools, f"LLVM {llvm_version}"])
        )


@dataclass(frozen=True)
class Tuning:
    """For each machine, the alternative that was fastest, by the label of the kernel.

    What another machine or other versions measured is kept, and not used.
    """

    choices: Mapping[Machine, Mapping[str, str]] = field(
        default_factory=dict[Machine, Mapping[str, str]]
    )

    @staticmethod
    def read(path: Path) -> "Tuning":
        """What `write` wrote; raises UsageError if the file is missing or damaged."""
        try:
            document = json.loads(path.read_bytes())
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}") from None
        except ValueError:
            document = None
        choices = _parsed(document)
        if choices is None:
            raise UsageError(
                f"{path} is damaged, or no tuning file of this version: "
                "write it anew with 'niwaki compile --tune'"
            )
        return Tuning(choices)

    def write(self, path: Path) -> None:
        """Writes JSON, the same bytes for the same choices; raises UsageError if it cannot."""
        machines = [
            {**asdict(machine), "choices": dict(sorted(self.choices[machine].items()))}
            for machine in sorted(self.choices)
        ]
        text = json.dumps({"format": _FORMAT, "machines": machines}, indent=1)
        write_atomically(path, f"{text}\n".encode())

    def of(self, target: Target) -> Mapping[str, str]:
        """The choices for `target`; empty if there are none for this machine and these tools."""
        return self.choices.get(Machine.of(target), {})

    def updated(self, target: Target, choices: Mapping[str, str]) -> "Tuning":
        """With other or further choices for `target`."""
        merged = {**self.of(target), **choices}
        return Tuning({**self.choices, Machine.of(target): merged})


def _parsed(document: Any) -> dict[Machine, Mapping[str, str]] | None:
    """None if `document` is not what `write` makes."""
    if not isinstance(document, dict) or document.get("format") != _FORMAT:  # pyright: ignore[reportUnknownMemberType]
        return None
    try:
        found: dict[Machine, Mapping[str, str]] = {}
        machines: Any = document["machines"]
        for entry in machines:
            choices: dict[str, str] = entry.pop("choices")
            machine = Machine(**entry)
            names = [machine.cpu, machine.features, machine.tools, *choices, *choices.values()]
            if type(machine.threads) is not int or {type(name) for name in names} != {str}:
                return None
            found[machine] = choices
        return found
    except (AttributeError, KeyError, TypeError):
        return None
