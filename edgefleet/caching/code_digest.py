"""What the code of a step means: digests of everything of our own packages that it reaches, and versions of the libraries below.

Works on source text, nothing is imported: asking is cheap, also for code that would load TensorFlow. The unit is a top-level statement
(a function, a class with its methods, a constant): its syntax tree without docstrings, comments and layout, so that words change no key.

Seen: names, attributes of imported modules, imports at any depth, defaults, decorators, annotations (an argument's class is code that may
run), closures of the functions given, texts that name one of our modules (`"trainer.candidates.forest"`), statements that run at import.
Not seen: `getattr` by computed text, subclasses that come in as values, files, environment. Declare those as inputs of the step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final

from edgefleet.caching.code_kept import Units, read_units, sources_digest, write_units
from edgefleet.caching.code_modules import EFFECTS, Module, Syntax, Target, bind_imports, parse, sha256_text
from edgefleet.caching.code_versions import versions_of

_ALL: Final = "*"  # the unit that names everything of its module
_ROOT: Final = Path(__file__).parents[2]
OWN_PACKAGES: Final[dict[str, Path]] = dict.fromkeys(("converter", "edgefleet", "trainer"), _ROOT)


@dataclass(frozen=True)
class CodeDigest:
    """What was reached.

    Attributes:
        units: Sha256 by unit, for example {"trainer.intervals.proportion": "1f0c.."}.
        versions: Version by library; "python" without its last number, "absent" for a library that is not installed.
    """

    units: dict[str, str]
    versions: dict[str, str]


class Sources:
    """The files of our packages, each parsed at most once: what is on disk when first asked counts for the life of this object."""

    def __init__(self, packages: Mapping[str, Path] | None = None, kept: Path | None = None) -> None:
        """Take what was read before, where not a byte of the sources has changed since.

        Args:
            packages: Folder that holds the package or module, by its top name;
                converter, edgefleet and trainer when left out.
            kept: File of what `keep` wrote; None: everything is read anew.
        """
        self._packages = dict(OWN_PACKAGES if packages is None else packages)
        self._modules: dict[str, Module | None] = {}
        self._kept = kept
        self._of = "" if kept is None else sources_digest(self._packages)
        self._units: Units = {} if kept is None else read_units(kept, self._of)
        self._known = len(self._units)

    def keep(self) -> None:
        """Write what was read for the next process; nothing is written when sources changed meanwhile, or where nothing is new.

        Raises:
            OSError: The disk refused.
        """
        if self._kept is not None and len(self._units) > self._known and sources_digest(self._packages) == self._of:
            write_units(self._kept, self._of, self._units)
            self._known = len(self._units)

    def digest(self, code: Sequence[object]) -> CodeDigest:
        """Digests of all that `code` reaches.

        Args:
            code: Functions, classes, modules, or their names: `package.module` or `package.module:name`.

        Raises:
            TypeError: An item has no source in our packages, or a closure holds a value that has no digest: pass it as an input.
        """
        units: dict[str, str] = {}
        foreign: set[str] = set()
        waiting: list[tuple[str, str]] = []
        for item in code:
            roots, closure = self._roots(item)
            waiting += roots
            units |= closure
        while waiting:
            module, name = waiting.pop()
            if not self._is_own(module):
                foreign.add(module.partition(".")[0])
            elif (label := f"{module}.{name}") not in units:
                units[label], reached = self._unit(module, name)
                waiting += reached
        kept = {label: units[label] for label in sorted(units) if units[label]}
        return CodeDigest(units=kept, versions=versions_of(foreign))

    def _roots(self, item: object) -> tuple[list[tuple[str, str]], dict[str, str]]:
        if isinstance(item, str):
            module, _, name = item.partition(":")
            roots = [(module, name or _ALL)]
        elif isinstance(item, ModuleType):
            module, roots = item.__name__, [(item.__name__, _ALL)]
        else:
            module, name = getattr(item, "__module__", None) or "", getattr(item, "__qualname__", "").partition(".")[0]
            roots = [(module, name)]
        if roots[0] not in self._units and not self._has(*roots[0]):
            known = ", ".join(sorted(self._packages))
            raise TypeError(f"{item!r} has no source in the packages {known}: pass what it depends on as an input of the step")
        return (*self._closure(item, roots),)

    def _has(self, module: str, name: str) -> bool:
        parsed = self._parsed(module) if self._is_own(module) else None
        return parsed is not None and (name == _ALL or name in parsed.units or name in parsed.imports)

    def _closure(self, item: object, roots: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], dict[str, str]]:
        """The roots with the functions that a closure holds, and the digest of its plain values."""
        values: list[Any] = []
        for cell in getattr(item, "__closure__", None) or () if isinstance(item, FunctionType) else ():
            value = cell.cell_contents
            if isinstance(value, FunctionType | ModuleType | type):
                roots = roots + self._roots(value)[0]
            elif isinstance(value, bool | int | float | str | bytes | None):
                values.append(value)
            else:
                raise TypeError(f"{item!r} closes over a {type(value).__name__}, which has no digest: pass it as an input of the step")
        return roots, {f"{roots[0][0]}.{roots[0][1]} (closure)": sha256_text(repr(values))} if values else {}

    def _is_own(self, module: str) -> bool:
        return module.partition(".")[0] in self._packages

    def _parsed(self, module: str) -> Module | None:
        """The module, or None when there is no such file."""
        if module not in self._modules:
            base = self._packages[module.partition(".")[0]].joinpath(*module.split("."))
            path = next((path for path in (base.with_name(base.name + ".py"), base / "__init__.py") if path.is_file()), None)
            if path is None:
                self._modules[module] = Module(module) if base.is_dir() else None
            else:
                self._modules[module] = parse(module, path)
        return self._modules[module]

    def _whole(self, module: str) -> list[tuple[str, str]]:
        parsed = self._parsed(module) if self._is_own(module) else None
        names = [] if parsed is None else [*parsed.units, *parsed.imports]
        return [(module, name) for name in {*names, EFFECTS}]

    def _unit(self, module: str, name: str) -> tuple[str, set[tuple[str, str]]]:
        """Digest of one unit ("" for a mere import) and the units it names."""
        if (module, name) in self._units:
            return self._units[module, name]
        if name == _ALL:
            self._units[module, name] = "", set(self._whole(module))
            return self._units[module, name]
        parsed = self._parsed(module)
        if parsed is None:
            return "", set()
        parts = module.split(".")
        reached = {(".".join(parts[: depth + 1]), EFFECTS) for depth in range(len(parts))}  # importing a.b runs a's statements too
        for target in parsed.imports.get(name, []):
            reached |= self._follow(target, [])
        if name not in parsed.units and name not in parsed.imports:  # from `import *`, or made by a module's __getattr__
            for star in parsed.stars:
                reached |= set(self._whole(star))
        digest = ""
        if statements := parsed.units.get(name):
            local = Module(module, imports=dict(parsed.imports), units=parsed.units, stars=list(parsed.stars))
            syntax = Syntax(statements)
            bind_imports(syntax.imports, local)
            meant = {}
            for chain in syntax.chains:
                if targets := self._resolve(local, chain):
                    meant[".".join(chain)] = sorted(targets)
                    reached |= targets
            digest = sha256_text("\0".join([*syntax.text, *map(repr, sorted(meant.items()))]))
        self._units[module, name] = digest, reached
        return digest, reached

    def _resolve(self, module: Module, chain: tuple[str, ...]) -> set[tuple[str, str]]:
        """Units that `a.b.c` means inside `module`; a chain of one text with a dot names a module."""
        first, rest = chain[0], list(chain[1:])
        if "." in first or ":" in first:
            dotted, _, name = first.partition(":")
            if not self._is_own(dotted) or self._parsed(dotted) is None:
                return set()
            return {(dotted, name)} if name else set(self._whole(dotted))
        found: set[tuple[str, str]] = set()
        for target in module.imports.get(first, []):
            found |= self._follow(target, rest)
        if first in module.units:
            found.add((module.name, first))
        for star in module.stars:
            found |= set(self._whole(star))
        return found

    def _follow(self, target: Target, rest: list[str]) -> set[tuple[str, str]]:
        """Units of an imported module or of its attributes `rest`."""
        module, names = target.module, ([target.attribute] if target.attribute else []) + rest
        if not self._is_own(module):
            return {(module, "")}
        while names:
            parsed = self._parsed(module)
            if parsed is not None and (names[0] in parsed.units or names[0] in parsed.imports):
                return {(module, names[0])}
            if self._parsed(f"{module}.{names[0]}") is None:
                break  # made at run time: everything of the module counts
            module, names = f"{module}.{names[0]}", names[1:]
        return set(self._whole(module))
