"""One source file as units: which top-level statement binds which name, what it imports, what it names. No code is run."""

import ast
import hashlib
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MODULE_TEXT: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+(?::[A-Za-z_]\w*)?")
_RELATIVE: Final = re.compile(rb"from\s+\.")
_NAMES: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
EFFECTS: Final = "<import>"  # the unit of what runs when the module is imported

# Python 3.11 counts the depth of all threads' trees in one place, and fails when a collector's callback lets another thread parse too.
_ONE_PARSER: Final = threading.Lock()


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
    content = path.read_bytes()
    with _ONE_PARSER:
        tree = ast.parse(content, str(path))
    for node in ast.walk(tree) if _RELATIVE.search(content) else ():
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            node.module, node.level = ".".join([*base, *([node.module] if node.module else [])]), 0
    for statement in tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom) or _only_imports(statement):
            bind_imports(Syntax([statement]).imports, module)
        elif not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            names = set(_bound(statement))
            if not names or names & module.imports.keys() or _is_registered(statement, module):
                names.add(EFFECTS)
            if isinstance(statement, ast.If | ast.Try | ast.With):
                bind_imports(Syntax([statement]).imports, module)
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
    return any(chain[0] in module.units for chain in Syntax(getattr(statement, "decorator_list", [])).chains)


def bind_imports(imports: Sequence[ast.AST], module: Module) -> None:
    """Add import statements to the names that `module` binds."""
    for node in imports:
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


class Syntax:
    """Statements read once: their syntax as text, the names they use, the imports in them."""

    def __init__(self, statements: Sequence[ast.AST]) -> None:
        """Read `statements`; positions, docstrings and comments are left out.

        Attributes:
            text: The syntax in pieces.
            chains: Every name with its attributes, `np.linalg.norm` as (np, linalg, norm); texts that name a module; names in annotations
                that are written as texts.
            imports: Import statements at any depth.
        """
        self.text: list[str] = []
        self.chains: set[tuple[str, ...]] = set()
        self.imports: list[ast.AST] = []
        for statement in statements:
            self._read(statement, False)

    def _read(self, value: object, annotation: bool) -> None:
        # This is the whole cost of a digest, a quarter of a million calls for the trainer: kinds are compared, not isinstance'd.
        kind = type(value)
        if kind is list:
            self.text.append(f"[{len(value)}")  # type: ignore[arg-type]  # mypy does not narrow by `is`
            for item in value:  # type: ignore[attr-defined]
                self._read(item, annotation)
        elif kind is ast.Name:
            self._name((value.id,))  # type: ignore[attr-defined]
        elif kind is ast.Attribute:
            self._attribute(value)  # type: ignore[arg-type]
        elif isinstance(value, ast.AST):
            self._node(value, annotation)
        else:
            self.text.append(repr(value))

    def _node(self, node: ast.AST, annotation: bool) -> None:
        kind = type(node)
        self.text.append(kind.__name__)
        if kind in (ast.Import, ast.ImportFrom):
            self.imports.append(node)
        elif kind is ast.Constant:
            self._text(node.value, annotation)  # type: ignore[attr-defined]
        for name in node._fields:
            child = getattr(node, name, None)
            if name == "body" and kind in (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef):
                child = child[1:] if _is_text(child[0]) else child  # type: ignore[index]  # a body is a list with something in it
            if name != "ctx":
                self._read(child, annotation or name in ("annotation", "returns"))

    def _attribute(self, node: ast.Attribute) -> None:
        names: list[str] = []
        base: ast.expr = node
        while isinstance(base, ast.Attribute):
            names.append(base.attr)
            base = base.value
        if isinstance(base, ast.Name):
            self._name((base.id, *reversed(names)))
        else:
            self.text.append(f"Attribute {'.'.join(names)}")
            self._read(base, False)

    def _name(self, chain: tuple[str, ...]) -> None:
        self.text.append(f"Name {'.'.join(chain)}")
        self.chains.add(chain)

    def _text(self, value: object, annotation: bool) -> None:
        if not isinstance(value, str):
            return
        if annotation:
            self.chains |= {tuple(name.split(".")) for name in _NAMES.findall(value)}
        elif MODULE_TEXT.fullmatch(value):
            self.chains.add((value,))


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)


def sha256_text(text: str) -> str:
    """Sha256 of text; lone surrogates, which source code may hold as constants, count too."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
