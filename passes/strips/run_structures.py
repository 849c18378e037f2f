"""Recognises runs of operations that are equal but for where they stand."""

from collections.abc import Collection, Hashable, Sequence

from xdsl.ir import Operation, SSAValue

from niwaki.passes.strips.find_region import BlockFacts


class Structures:
    """Keys of runs; equal ones are computed in strips alike."""

    def __init__(self, facts: BlockFacts) -> None:
        self.facts = facts
        self._kinds: dict[Hashable, int] = {}
        self._kind_of: dict[Operation, int] = {}

    def of(
        self,
        run: Sequence[Operation],
        recomputed: Sequence[Operation],
        dropped: Collection[SSAValue],
    ) -> Hashable:
        """The key of a run that computes `recomputed` again, without `dropped` results."""
        numbers: dict[SSAValue, int] = {}
        key: list[Hashable] = [len(recomputed)]
        for op in (*recomputed, *run):
            operands = tuple([numbers.get(o, -1) for o in op.operands])
            for result in op.results:
                numbers[result] = len(numbers)
            key.append((self._kind(op), operands))
        inside = set(run)
        for op in run:
            for result in op.results:
                read = any(use.operation not in inside for use in result.uses)
                if read and result not in dropped:
                    key.append(numbers[result])
        return tuple(key)

    def _kind(self, op: Operation) -> int:
        """A number that equal operations share."""
        if op not in self._kind_of:
            static = tuple(o in self.facts.static for o in op.operands)
            properties = tuple(sorted(op.properties.items(), key=lambda item: item[0]))
            kind: Hashable = (
                op.name,
                op.operand_types,
                op.result_types,
                static,
                op in self.facts.updates,
                properties,
            )
            self._kind_of[op] = self._kinds.setdefault(kind, len(self._kinds))
        return self._kind_of[op]
