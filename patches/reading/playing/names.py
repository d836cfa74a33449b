"""What names stand for at the top of modules, and what attributes are of things of the tree."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ..files import File
from ..files import Function as FunctionNode
from ..values import Place
from .cases import members
from .kinds import Class, Function, Library, Module, Opaque, Scope, Super, Thing, kinds_of

if TYPE_CHECKING:
    from .walk import Walk

_PROPERTIES = {"property", "cached_property"}


def member(walk: Walk, path: str, name: str) -> Any:
    """What a name stands for at the top of a module; looked for once."""
    scope = walk.module(path)
    if name not in scope.names:
        scope.names[name] = Opaque(why=f"what {name} stands for")  # as far as a circle is concerned
        scope.names[name] = _top(walk, scope, name)
    return scope.names[name]


def _top(walk: Walk, scope: Scope, name: str) -> Any:
    file, nodes = scope.file, _binding(scope.file, name)
    if name not in file.scope.bound and hasattr(builtins, name) and (walk.world.is_lenient or not file.scope.is_open):
        return walk.world.library(name)
    if not nodes or (len(nodes) > 1 and any(isinstance(each, ast.Name) for each in nodes)):
        return walk.world.top(scope, name, None)
    node, holder = nodes[-1], file.parents.get(nodes[-1])
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            return walk.world.defined(Function(file.path, node))
        case ast.ClassDef():
            return Class(file.path, node)
        case ast.alias() if isinstance(holder, (ast.Import, ast.ImportFrom)):
            return imported(walk, file, holder, node)
    value = holder.value if isinstance(holder, (ast.Assign, ast.AnnAssign)) else None
    return walk.world.top(scope, name, value)


@lru_cache(maxsize=4096)
def _binding(file: File, name: str) -> list[ast.AST]:
    """What binds a name at the top of a module."""
    return [each for each in file.scope.bound.get(name, []) if file.function(each) is None]


def imported(walk: Walk, file: File, node: ast.Import | ast.ImportFrom, alias: ast.alias) -> Any:
    """What an import brings under a name."""
    files = walk.code.files
    if isinstance(node, ast.Import):
        dotted = alias.name if alias.asname else alias.name.split(".")[0]
        path = files.imported(dotted, file.path)
        return Module(path) if path is not None else walk.world.library(dotted)
    module = "." * node.level + (node.module or "")
    path = files.imported(module, file.path)
    if path is not None and _has(walk, path, alias.name):
        return walk.member(path, alias.name)
    inner = files.imported(f"{module}{'' if module.endswith('.') else '.'}{alias.name}", file.path)
    return Module(inner) if inner is not None else walk.world.library(f"{module}.{alias.name}")


def _has(walk: Walk, path: str, name: str) -> bool:
    file = walk.code.files.file(path)
    return file is not None and name in file.scope.bound


def attribute(walk: Walk, owner: Any, name: str, at: Place) -> Any:
    """What an attribute is."""
    match owner:
        case Thing():
            if name == "__dict__":
                return owner.own
            return owner.own[name] if name in owner.own else of_class(walk, owner.cls, name, owner, at)
        case Class():
            return of_class(walk, owner, name, owner, at)
        case Module(path):
            inner = walk.code.files.imported(f".{name}", path) if path.endswith("__init__.py") else None
            return Module(inner) if inner is not None and not _has(walk, path, name) else walk.member(path, name)
        case Library():
            return walk.world.library(f"{owner.dotted}.{name}")
        case Super():
            return of_class(walk, owner.of.cls, name, owner.of, at, owner.above)
    return walk.world.attribute(owner, name, at)


def of_class(walk: Walk, cls: Class, name: str, owner: Any, at: Place, above: ast.ClassDef | None = None) -> Any:
    """What a class, or those of its bases that come behind one, gives an object of it, or itself, under a name."""
    if cls.node.bases and name in (known := members(walk, cls)):
        return known[name]
    family = walk.code.bases(cls.path, cls.node)
    start = next((place for place, (_, node) in enumerate(family) if node is above), len(family)) + 1
    for path, node in family[start:] if above is not None else family:
        for each in reversed(node.body):
            if isinstance(each, FunctionNode) and each.name == name:
                return bound(walk, path, each, owner, at)
            targets: Sequence[Any] = each.targets if isinstance(each, ast.Assign) else [getattr(each, "target", None)]
            value = getattr(each, "value", None)
            if value is not None and any(isinstance(target, ast.Name) and target.id == name for target in targets):
                if value not in walk.held:
                    walk.held[value] = default_of(walk, walk.module(path), value, at)
                return walk.world.told(f"{cls.node.name}.{name}", walk.held[value], value)
    return walk.world.lacking(owner, name, at) if above is None else Opaque(why="what a base class does", at=at)


def bound(walk: Walk, path: str, node: FunctionNode, owner: Any, at: Place) -> Any:
    """A function of a class, of the object or the class that it is asked of; what a property gives."""
    kinds = kinds_of(node)
    if isinstance(owner, Class) and "classmethod" not in kinds:
        owner = None
    if "classmethod" in kinds and isinstance(owner, Thing):
        owner = owner.cls
    made = walk.world.defined(Function(path, node, None, None if "staticmethod" in kinds else owner))
    return walk.call(made, [], {}, at) if kinds & _PROPERTIES and owner is not None else made


def default_of(walk: Walk, scope: Scope, value: ast.expr, at: Place) -> Any:
    """What a field of a data class is unless it is given."""
    named = field_settings(value)
    if "default_factory" in named:
        return walk.call(walk.value(scope, named["default_factory"]), [], {}, at)
    return walk.value(scope, named.get("default", value))


def field_settings(value: ast.expr | None) -> dict[str, ast.expr]:
    """What `field` is told, where a field of a data class is made by it."""
    is_field = isinstance(value, ast.Call) and getattr(value.func, "id", getattr(value.func, "attr", "")) == "field"
    return {each.arg or "": each.value for each in value.keywords} if is_field else {}  # type: ignore[union-attr]


def is_whole(walk: Walk, cls: Class) -> bool:
    """Whether all bases of a class are the tree's."""
    family = walk.code.bases(cls.path, cls.node)
    count = sum(getattr(base, "id", "") != "object" for _, node in family for base in node.bases)
    return bool(count == len(family) - 1)


def is_net(walk: Walk, cls: Class) -> bool:
    """Whether a class is a torch module."""
    family = walk.code.bases(cls.path, cls.node)
    made = (walk.value(walk.module(path), base) for path, node in family for base in node.bases)
    return any(isinstance(base, Library) and base.dotted.startswith("torch.nn.") for base in made)
