"""What a command of `niwaki` prints on stdout."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

SCHEMA = 1


@dataclass(frozen=True)
class Result:
    """The outcome of a command, for people and for programs."""

    text: str
    data: Mapping[str, object]
    """Ready for JSON; keys are part of the interface."""

    def json(self, command: str) -> str:
        """One versioned JSON object on one line."""
        return json.dumps({"schema": SCHEMA, "command": command, **self.data})
