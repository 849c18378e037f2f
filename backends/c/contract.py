"""The interface of a generated library: header, functions, data. See "templates/model.h"."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from importlib.resources import files
from string import Template

import numpy as np
from numpy.typing import NDArray

from niwaki.backends.c.arguments import Argument, arguments_of
from niwaki.backends.c.blocks import (
    Block,
    arena_blocks,
    entry_blocks,
    state_blocks,
)
from niwaki.backends.c.emit import emit_module
from niwaki.backends.c.emit_program import ConstantArray
from niwaki.backends.c.input_places import InputPlaces, place_inputs
from niwaki.backends.c.literals import C_TYPES, float_literal, initializer
from niwaki.backends.c.names import check_prefix, comment_text
from niwaki.backends.c.saved_state import MAGIC, model_hash, payload_bytes, saved_rows
from niwaki.backends.targets import get_target
from niwaki.ir.lowered import EntryPoint, Lowered, StorageEntry

_DOCS = {
    "train_step": "Trains on one batch: one forward and backward pass and one update of the state.",
    "infer": "Computes the outputs for one batch.",
    "evaluate": "Computes the loss on one batch and changes nothing.",
}


def fill(name: str, values: Mapping[str, object]) -> str:
    """A template with its places filled."""
    text = (files("niwaki.backends.c") / "templates" / name).read_text(encoding="utf-8")
    return Template(text).substitute(values)


@dataclass(frozen=True)
class _BatchFunction:
    """A function of many batches."""

    name: str
    entry: str
    """The function of one batch that it calls."""
    doc: str


_BATCH_FUNCTIONS = (
    _BatchFunction(
        "train", "train_step", "Trains on up to `batches` batches of a source, a step each."
    ),
    _BatchFunction("evaluate_all", "evaluate", "Evaluates up to `batches` batches of a source."),
)


@dataclass(frozen=True)
class Contract:
    """Writes the files of one library."""

    lowered: Lowered
    prefix: str
    options: str
    learning_rate: float

    def __post_init__(self) -> None:
        check_prefix(self.prefix)

    @property
    def model_hash(self) -> str:
        """A state saved under one hash fits every library that has the same."""
        return model_hash(self.lowered)

    @property
    def names(self) -> dict[str, object]:
        """What every template knows."""
        return {
            "p": self.prefix,
            "P": self.prefix.upper(),
            "version": version("niwaki"),
            "model_hash": self.model_hash,
            "target": comment_text(self.lowered.target_name),
        }

    # --- header

    def header(self) -> str:
        """<prefix>.h."""
        entries = self.lowered.entries.values()
        return fill(
            "model.h",
            {
                **self.names,
                "options": comment_text(self.options) or "none",
                "memory_table": "\n".join(self._memory_rows()),
                "state_table": _storage_table(self.lowered.state),
                "constant_table": _storage_table(self.lowered.constants),
                "size_macros": "\n".join(self._size_macros()),
                "payload_bytes": payload_bytes(self.lowered),
                "learning_rate": float_literal(self.learning_rate),
                "sections": "".join(map(self._section, self.regions)),
                "members": "\n".join(self._members()),
                "init_parameters": self._init_parameters,
                "entry_prototypes": "\n".join(self._prototype(e) for e in entries),
                "input_prototypes": "\n".join(f"{self._place_signature(a)};" for a in self._inputs),
                "batch_functions": self._batch_prototypes(),
            },
        )

    @property
    def regions(self) -> list[str]:
        """The regions that hold something of the caller's."""
        return list(dict.fromkeys(block.region for block in self._blocks if block.region))

    def _section(self, region: str) -> str:
        macro = f"{self.prefix}_in_{region}".upper()
        return f"""
/** Places an array in the region {region}: an attribute, or nothing. */
#ifndef {macro}
#if defined(__GNUC__) && defined(__ELF__)
#define {macro} __attribute__((section(".bss.{region}")))
#else
#define {macro}
#endif
#endif
"""

    def _members(self) -> list[str]:
        lines = [f"    unsigned char *{block.name};" for block in self._blocks]
        return [*lines, *(f"    size_t {b.name}_bytes;" for b in arena_blocks(self.lowered))]

    @property
    def _init_parameters(self) -> str:
        return ",\n    ".join(f"void *{b.name}, size_t {b.name}_bytes" for b in self._blocks)

    def arrays(self) -> list[str]:
        """Definitions of arrays for the caller's memory."""
        big = self.prefix.upper()
        return [
            f"static {f'{big}_IN_{b.region.upper()} ' if b.region else ''}uint64_t "
            f"{b.name}[({self._macro(b)} + 7u) / 8u];"
            for b in self._blocks
        ]

    def array_arguments(self) -> str:
        """Those arrays as arguments of the function that prepares a context."""
        return ", ".join(f"{b.name}, sizeof {b.name}" for b in self._blocks)

    def _memory_rows(self) -> list[str]:
        rows = [
            f" *   {e.name:<12} arena {e.arena_bytes:>10}   lower bound {e.bound_bytes:>10}"
            for e in self.lowered.entries.values()
        ]
        rows += [
            f" *   {e.name:<12} arena {part.size:>10}   in {part.region}"
            for e in self.lowered.entries.values()
            for part in e.regions
        ]
        rows.append(f" *   {'state':<12}       {len(self.lowered.state_image):>10}")
        rows += [
            f" *   {'state':<12}       {part.size:>10}   in {part.region}"
            for part in self.lowered.state_regions
        ]
        rows.append(f" *   {'constants':<12}       {len(self.lowered.constants_image):>10}")
        return rows

    @property
    def _blocks(self) -> list[Block]:
        """What the caller allocates."""
        return [*arena_blocks(self.lowered), *state_blocks(self.lowered)]

    def _macro(self, block: Block, entry: EntryPoint | None = None) -> str:
        """The name of the bytes of a block, for all functions or for one."""
        names = [self.prefix, *([] if entry is None else [entry.name]), block.name, "bytes"]
        return "_".join(names).upper()

    def _size_macros(self) -> list[str]:
        big = self.prefix.upper()
        lowered = self.lowered
        arena, state = arena_blocks(lowered), state_blocks(lowered)
        lines = [
            "/** Bytes of an arena that serves every function. */",
            f"#define {big}_ARENA_BYTES {sum(b.bytes for b in arena)}u",
            *(f"#define {self._macro(b)} {b.bytes}u" for b in arena if b.region),
        ]
        for entry in lowered.entries.values():
            for block in entry_blocks(entry):
                lines.append(f"#define {self._macro(block, entry)} {block.bytes}u")
        lines += [
            "/** Bytes of an arena that serves every function and holds its inputs as well. */",
            *(
                f"#define {self._input_macro(b)} {size}u"
                for b, size in zip(arena, self._places.sizes, strict=True)
            ),
            "/** Bytes of the state: what training changes. */",
            f"#define {big}_STATE_BYTES {sum(b.bytes for b in state)}u",
            *(f"#define {self._macro(b)} {b.bytes}u" for b in state if b.region),
            "/** Bytes of constant data: frozen weights. */",
            f"#define {big}_CONSTANT_BYTES {len(lowered.constants_image)}u",
            "/** Arrays: elements, and sizes of the dimensions as an initialiser. */",
        ]
        shapes = {
            a.name: a.port
            for entry in lowered.entries.values()
            for a in arguments_of(entry)
            if a.port.shape
        }
        for name, port in shapes.items():
            sizes = ", ".join(map(str, port.shape))
            lines.append(f"#define {big}_{name.upper()}_ELEMENTS {port.elements}u")
            lines.append(f"#define {big}_{name.upper()}_SHAPE {{{sizes}}}")
        first = next((p.shape[0] for n, p in shapes.items() if n in ("x", "x0")), 1)
        return [*lines, "/** Examples in a batch. */", f"#define {big}_BATCH {first}u"]

    @property
    def _inputs(self) -> list[Argument]:
        """What the functions read: x..., y."""
        arguments = (a for e in self.lowered.entries.values() for a in arguments_of(e) if a.read)
        return list({a.name: a for a in arguments}.values())

    @cached_property
    def _places(self) -> InputPlaces:
        return place_inputs(self.lowered)

    def _input_macro(self, block: Block) -> str:
        """The name of the bytes of a block that holds inputs as well."""
        return f"{self.prefix}_input_{block.name}_bytes".upper()

    def _place_signature(self, argument: Argument) -> str:
        pointer = f"{C_TYPES[argument.port.dtype]} *"
        return f"{pointer}{self.prefix}_input_{argument.name}(const {self.prefix}_context *context)"

    def _batch_prototypes(self) -> str:
        """Of the functions that take batches from a source; nothing if there are none."""
        functions = [f for f in _BATCH_FUNCTIONS if f.entry in self.lowered.entries]
        if not functions:
            return ""
        prototypes = (fill("batches_prototype.h", {**self.names, **asdict(f)}) for f in functions)
        pointers = (f"{C_TYPES[a.port.dtype]} *{a.name}" for a in self._inputs)
        values = {"batch_pointers": ", ".join(pointers), "prototypes": "\n".join(prototypes)}
        return fill("batches.h", {**self.names, **values})

    def _signature(self, entry: EntryPoint) -> str:
        arguments = ", ".join(a.declaration for a in arguments_of(entry))
        return f"int {self.prefix}_{entry.name}({self.prefix}_context *context, {arguments})"

    def _prototype(self, entry: EntryPoint) -> str:
        lines = ["/**", f" * {_DOCS[entry.name]}", " *"]
        for argument in arguments_of(entry):
            port = argument.port
            direction = "in" if argument.read else "out"
            sizes = "x".join(map(str, port.shape)) or "one"
            lines.append(
                f" * @param[{direction}] {argument.name} {sizes} {port.dtype}"
                f" ({comment_text(port.name)})"
            )
        return "\n".join([*lines, " */", f"{self._signature(entry)};", ""])

    # --- code

    def code(self) -> str:
        """<prefix>.c: kernels, programs and the functions of the interface."""
        entries = self.lowered.entries
        arrays = [
            ConstantArray(self._constant_name(n), C_TYPES[e.dtype], e.offset, e.bytes)
            for n, e in enumerate(self.lowered.constants)
        ]
        machine = get_target(self.lowered.target_name)
        kernels = emit_module(
            [kernel.build() for kernel in self.lowered.kernels],
            [p for p in self.lowered.programs if p.sym_name.data in entries],
            entries,
            arrays,
            shared=machine.board is not None,
            vectorized=machine.vector_dots,
        )
        contract = fill(
            "contract.c",
            {
                **self.names,
                "state_image_bytes": len(self.lowered.state_image),
                **self._contract_code(),
                "entry_functions": "\n".join(self._function(e) for e in entries.values()),
            },
        )
        head = f'#include "{self.prefix}.h"\n#include "{self.prefix}_data.h"\n'
        parts = [kernels, contract, *self._input_functions(), *self._batch_code()]
        parts.append(fill("saved_state.c", {**self.names, **self._saving_code()}))
        return f"/* Written by niwaki; do not edit. */\n{head}\n" + "\n".join(parts)

    def _contract_code(self) -> dict[str, str]:
        """What depends on the caller's blocks."""
        arena, state = arena_blocks(self.lowered), state_blocks(self.lowered)
        blocks = [*arena, *state]
        aligned = f"{self.prefix.upper()}_ALIGNMENT"
        return {
            "init_parameters": self._init_parameters,
            "any_null": " || ".join(f"{b.name} == NULL" for b in blocks),
            "state_too_small": " || ".join(f"{b.name}_bytes < {self._macro(b)}" for b in state),
            "any_unaligned": " || ".join(f"(uintptr_t){b.name} % {aligned} != 0" for b in blocks),
            "clear_state": "\n".join(f"    memset({b.name}, 0, {self._macro(b)});" for b in state),
            "copy_initial_state": "\n".join(self._copies(state)),
            "set_blocks": "\n".join(
                [f"    context->{b.name} = (unsigned char *){b.name};" for b in blocks]
                + [f"    context->{b.name}_bytes = {b.name}_bytes;" for b in arena]
            ),
        }

    def _saving_code(self) -> dict[str, str]:
        """What depends on the state's entries."""
        blocks = state_blocks(self.lowered)
        rows: list[str] = []
        for saved in saved_rows(self.lowered):
            number = max(n for n, b in enumerate(blocks) if b.start <= saved.offset)
            place = f"{number}u, {saved.offset - blocks[number].start}u"
            rows.append(f"    {{{place}, {saved.bytes}u, {saved.stride}u, {saved.count}u}},")
        return {
            "magic": f"{MAGIC:08x}",
            "hash_high": self.model_hash[:8],
            "hash_low": self.model_hash[8:],
            "saved_rows": "\n".join(rows),
            "state_blocks": ", ".join(f"context->{b.name}" for b in blocks),
        }

    def _copies(self, state: Sequence[Block]) -> list[str]:
        lines: list[str] = []
        for number, entry in self._initial_entries():
            block = next(b for b in reversed(state) if b.start <= entry.offset)
            place = f"(unsigned char *){block.name} + {entry.offset - block.start}"
            lines.append(f"    memcpy({place}, {self._initial_name(number)}, {entry.bytes});")
        return lines

    def _function(self, entry: EntryPoint) -> str:
        big = self.prefix.upper()
        arguments = arguments_of(entry)
        missing = " || ".join(f"{a.name} == NULL" for a in arguments)
        passed = [f"context->{block.name}" for block in self._blocks]
        passed += [a.name for a in arguments if a.read]
        too_small = " || ".join(
            f"context->{b.name}_bytes < {self._macro(b, entry)}" for b in entry_blocks(entry)
        )
        if entry.name == "train_step":
            passed.append("&context->lr")
        passed += [a.name for a in arguments if not a.read]
        return f"""\
{self._signature(entry)}
{{
    const int status = check_context(context);
    if (status != {big}_OK) {{
        return status;
    }}
    if ({too_small}) {{
        return {big}_ERROR_SIZE;
    }}
    if ({missing}) {{
        return {big}_ERROR_NULL;
    }}
    run_{entry.name}({", ".join(passed)});
    return {big}_OK;
}}
"""

    def _input_functions(self) -> list[str]:
        arena = arena_blocks(self.lowered)
        too_small = " || ".join(
            f"context->{block.name}_bytes < {self._input_macro(block)}" for block in arena
        )
        return [
            f"""\
{self._place_signature(argument)}
{{
    if (check_context(context) != {self.prefix.upper()}_OK || {too_small}) {{
        return NULL;
    }}
    return ({C_TYPES[argument.port.dtype]} *)(void *)(context->{arena[place.block].name} \
+ {place.offset});
}}
"""
            for argument in self._inputs
            for place in [self._places.places[argument.name]]
        ]

    def _batch_code(self) -> list[str]:
        codes: list[str] = []
        for function in _BATCH_FUNCTIONS:
            if function.entry not in self.lowered.entries:
                continue
            arguments = arguments_of(self.lowered.entries[function.entry])
            inputs = [a for a in arguments if a.read]
            values = {
                "name": function.name,
                "function": function.entry,
                "input_variables": "\n".join(
                    f"    {C_TYPES[a.port.dtype]} *const {a.name} = "
                    f"{self.prefix}_input_{a.name}(context);"
                    for a in inputs
                ),
                "no_place": " || ".join(f"{a.name} == NULL" for a in inputs),
                "inputs": ", ".join(a.name for a in inputs),
                "arguments": ", ".join(a.name if a.read else f"&{a.name}" for a in arguments),
            }
            codes.append(fill("batches.c", {**self.names, **values}))
        return codes

    # --- data

    def _constant_name(self, number: int) -> str:
        return f"{self.prefix}_constant_{number}"

    def _initial_name(self, number: int) -> str:
        return f"{self.prefix}_initial_{number}"

    def _initial_entries(self) -> list[tuple[int, StorageEntry]]:
        """State that does not start as zeros."""
        image = self.lowered.state_image.array()
        return [
            (n, e)
            for n, e in enumerate(self.lowered.state)
            if image[e.offset : e.offset + e.bytes].any()
        ]

    def _arrays(self) -> list[tuple[str, StorageEntry, NDArray[np.generic]]]:
        lowered = self.lowered
        state, constants = lowered.state_image.array(), lowered.constants_image.array()
        return [
            *((self._initial_name(n), e, e.view(state)) for n, e in self._initial_entries()),
            *(
                (self._constant_name(n), e, e.view(constants))
                for n, e in enumerate(lowered.constants)
            ),
        ]

    def data_header(self) -> str:
        """<prefix>_data.h."""
        lines = [
            "/* Written by niwaki; do not edit. Frozen weights and the initial state. */",
            f"#ifndef {self.prefix.upper()}_DATA_H",
            f"#define {self.prefix.upper()}_DATA_H",
            "\n#include <stdint.h>",
            "\n#ifdef __cplusplus",
            'extern "C" {',
            "#endif\n",
        ]
        lines += [
            f"extern const {C_TYPES[entry.dtype]} {name}[{array.size}];"
            for name, entry, array in self._arrays()
        ]
        return "\n".join([*lines, "\n#ifdef __cplusplus", "}", "#endif", "\n#endif", ""])

    def data(self) -> str:
        """<prefix>_data.c."""
        lines = [
            "/* Written by niwaki; do not edit. */",
            f'#include "{self.prefix}_data.h"',
            "\n#include <math.h>",
            "\n/* Where the arrays are placed: an attribute, or nothing. */",
            "#ifndef NIWAKI_CONST_SECTION",
            "#define NIWAKI_CONST_SECTION",
            "#endif\n",
        ]
        for name, entry, array in self._arrays():
            kind = f"{entry.dtype}{list(entry.shape)}".replace("[", "(").replace("]", ")")
            lines += [
                f"/* {comment_text(entry.name)}: {kind} */",
                f"NIWAKI_CONST_SECTION const {C_TYPES[entry.dtype]} {name}[{array.size}] = {{",
                initializer(array),
                "};\n",
            ]
        return "\n".join(lines)


def _storage_table(entries: Sequence[StorageEntry]) -> str:
    rows: list[str] = []
    for entry in entries:
        shape = "x".join(map(str, entry.shape)) or "1"
        box = ""
        if entry.updated is not None and entry.updated != entry.shape:
            box = f" (updated: {'x'.join(map(str, entry.updated))})"
        rows.append(
            f" *   {entry.offset:>10} {entry.bytes:>10} {entry.kind:<10} {shape} {entry.dtype}"
            f"{box} {comment_text(entry.name)}"
        )
    return "\n".join(rows) or " *   none"
