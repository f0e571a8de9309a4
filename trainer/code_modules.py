"""One source file as units: which top-level statement binds which name, what it imports, what it names. No code is run."""

import ast
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

MODULE_TEXT: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+(?::[A-Za-z_]\w*)?")
EFFECTS: Final = "<import>"  # the unit of what runs when the module is imported


@dataclass
class Target:
    """An import: `attribute` of `module`, or the module itself."""

    module: str
    attribute: str | None = None


@dataclass
class Module:
    """One parsed file: which statements and imports bind which name."""

    name: str
    units: dict[str, list[ast.stmt]] = field(default_factory=dict)
    imports: dict[str, list[Target]] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)


def parse(name: str, path: Path) -> Module:
    """The module `name` from the file at `path`; relative imports become absolute."""
    module = Module(name)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_bytes(), str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:  # relative to absolute, once and for all
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            node.module, node.level = ".".join([*base, *([node.module] if node.module else [])]), 0
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom) or (compound := _only_imports(statement)):
            bind_imports([statement], module)
        elif not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            names = set(_bound(statement))
            if not names or (names & module.imports.keys() and not compound) or _is_registered(statement, module):
                names.add(EFFECTS)
            bind_imports([statement] if isinstance(statement, ast.If | ast.Try | ast.With) else [], module)
            for bound in names:
                module.units.setdefault(bound, []).append(statement)
    return module


def _only_imports(statement: ast.stmt) -> bool:
    """Whether a compound statement (`if TYPE_CHECKING`) does nothing but import."""
    if not isinstance(statement, ast.If | ast.Try):
        return False
    inner = [*statement.body, *statement.orelse]
    inner += [child for handler in getattr(statement, "handlers", []) for child in handler.body]
    return all(isinstance(child, ast.Import | ast.ImportFrom | ast.Pass) for child in inner)


def _bound(statement: ast.stmt) -> Iterator[str]:
    """Names that a top-level statement binds, or whose value it changes (`TABLE["a"] = 1`)."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name | ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store):
            base: ast.AST = node
            while isinstance(base, ast.Attribute | ast.Subscript):
                base = base.value
            if isinstance(base, ast.Name):
                yield base.id


def _is_registered(statement: ast.stmt, module: Module) -> bool:
    """Whether a decorator of this module (`@table.add`) keeps the function: then importing the module makes it reachable."""
    decorators = getattr(statement, "decorator_list", [])
    return any(chain[0] in module.units for decorator in decorators for chain in chains(decorator))


def bind_imports(statements: Sequence[ast.AST], module: Module) -> None:
    """Add every import in `statements`, at any depth, to the names that `module` binds."""
    for node in (node for statement in statements for node in ast.walk(statement)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                module.imports[name] = [*module.imports.get(name, []), Target(alias.name if alias.asname else name)]
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name == "*":
                    module.stars.append(node.module or "")
                else:
                    name = alias.asname or alias.name
                    module.imports[name] = [*module.imports.get(name, []), Target(node.module or "", alias.name)]


def chains(node: ast.AST) -> Iterator[tuple[str, ...]]:
    """Every name with its attributes, `np.linalg.norm` as (np, linalg, norm); texts that look like a module or an annotation too."""
    waiting = [node]
    while waiting:
        here = waiting.pop()
        if isinstance(here, ast.Attribute):
            names: list[str] = []
            base: ast.expr = here
            while isinstance(base, ast.Attribute):
                names.append(base.attr)
                base = base.value
            if isinstance(base, ast.Name):
                yield (base.id, *reversed(names))
                continue
            waiting.append(base)
        elif isinstance(here, ast.Name):
            yield (here.id,)
        elif isinstance(here, ast.Constant) and isinstance(here.value, str):
            if here.value.isidentifier() or MODULE_TEXT.fullmatch(here.value):
                yield (here.value,)
        else:
            waiting.extend(ast.iter_child_nodes(here))


def write_syntax(value: object, out: list[str]) -> None:
    """Syntax as text without positions and docstrings; `ast.dump` takes three times as long."""
    if isinstance(value, ast.AST):
        out.append(type(value).__name__)
        for name in value._fields:
            child: Any = getattr(value, name, None)
            if name == "body" and isinstance(value, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                first = child[0]
                told = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
                child = child[1:] if told else child
            if name != "ctx":
                write_syntax(child, out)
    elif isinstance(value, list):
        out.append(f"[{len(value)}")
        for item in value:
            write_syntax(item, out)
    else:
        out.append(repr(value))


def sha256_text(text: str) -> str:
    """Sha256 of text; lone surrogates, which source code may hold as constants, count too."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
