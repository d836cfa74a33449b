"""What a name is that belongs to something: an import of a module, an attribute of an object or a tensor."""

from __future__ import annotations

import ast

from .classes import PROPERTIES
from .frames import Env, Frame, choice
from .operations import applied
from .signatures import NEUTRAL, NUMBERS, VIEWS
from .values import Graph, Place, Value

_METHOD_KINDS = {*PROPERTIES, "staticmethod", "classmethod"}
_ON_ITS_DEVICE = VIEWS | NEUTRAL | {"pad", "unfold", "matmul", "add", "mul", "div", "softmax", "masked_fill"}


def global_named(graph: Graph, dotted: str) -> Value:
    """What a full name of a library means."""
    return graph.const(NUMBERS[dotted]) if dotted in NUMBERS else graph.value("global", data=dotted)


def imported(frame: Frame, node: ast.Import | ast.ImportFrom) -> Env:
    """What the names stand for that a statement imports."""
    files, here, graph, env = frame.code.files, frame.file.path, frame.graph, Env()
    for alias in node.names:
        if isinstance(node, ast.Import):
            dotted, path = alias.name if alias.asname else alias.name.split(".")[0], files.imported(alias.name, here)
            kind, data = ("file", path) if alias.asname else ("package", dotted)
            own = graph.value(kind, data=data)
            env[alias.asname or dotted] = own if path is not None else global_named(graph, dotted)
            continue
        module, name = "." * node.level + (node.module or ""), alias.asname or alias.name
        path = files.imported(module, here)
        inner = files.imported(f"{module}{'' if module.endswith('.') else '.'}{alias.name}", here)
        if alias.name == "*":
            names = files.exported(path) if path is not None else ()
            env |= {each: graph.value("import", data=(path, each), at=Place(frame.file, alias)) for each in names}
        elif path is not None and not (path.endswith("__init__.py") and inner is not None):
            env[name] = graph.value("import", data=(path, alias.name), at=Place(frame.file, alias))
        else:
            env[name] = graph.value("file", data=inner) if inner else global_named(graph, f"{module}.{alias.name}")
    return env


def attribute(frame: Frame, owner: Value, name: str, at: Place) -> Value:
    """What an attribute of a value is."""
    graph, code = frame.graph, frame.code
    owner = code.resolved(owner)
    known = frame.run.attributes.get((owner.key, name))
    if known is not None:
        return code.resolved(known)
    match owner.op:
        case "file":
            return code.member(owner.data, name)
        case "package":
            return _of_package(frame, owner.data, name)
        case "global":
            return global_named(graph, f"{owner.data}.{name}")
        case "instance" if is_of_module(owner) and frame.code.method(owner.data[0], owner.data[1], name) is None:
            return graph.value("attr", {"of": owner}, name, at)  # anybody may have set it
        case "self" | "instance":
            return _of_object(frame, owner, name, at)
        case "class":
            return _of_class(frame, owner, name, at)
        case "super":
            return graph.value("attr", {"of": owner}, name, at)
        case "phi":
            yes, no = (attribute(frame, owner[side], name, at) for side in ("yes", "no"))
            if {yes.op, no.op} <= {"function", "bound", "const"}:
                return choice(graph, owner["test"], yes, no, at)
        case "parameter" | "attr":
            own = graph.value("attr", {"of": owner}, name, at)
            reached = code.reached(own, at)
            if reached is not None and reached["func"].data[1].decorator_list:
                return frame.call(reached, [], {}, at)
            if code.is_numeric(own, at):
                graph.numeric.add(own.key)
    return _of_tensor(graph, owner, name, at)


def is_of_module(value: Value) -> bool:
    """Whether an object is made at the top of a module, for anybody to change."""
    at = value.at
    return at is not None and at.file.function(at.node) is None


def _of_package(frame: Frame, package: str, name: str) -> Value:
    files = frame.code.files
    path = files.imported(f"{package}.{name}", frame.file.path)
    if path is not None:
        return frame.graph.value("file", data=path)
    own = files.imported(package, frame.file.path)
    return frame.code.member(own, name) if own else frame.graph.value("package", data=f"{package}.{name}")


def _of_class(frame: Frame, owner: Value, name: str, at: Place) -> Value:
    path, node = owner.data
    method = frame.code.method(path, node, name)
    if method is not None:
        made = frame.graph.value("function", data=(method[0], method[2], None), at=at)
        is_of_cls = any(getattr(each, "id", "") == "classmethod" for each in method[2].decorator_list)
        return frame.graph.value("bound", {"func": made, "self": owner}, at=at) if is_of_cls else made
    known = frame.code.attributes(path, node, owner).get(name)
    return known if known is not None else frame.graph.value("attr", {"of": owner}, name, at)


def _of_object(frame: Frame, owner: Value, name: str, at: Place) -> Value:
    path, node = owner.data
    method = frame.code.method(path, node, name)
    if method is None:
        known = frame.code.attributes(path, node, owner).get(name)
        return known if known is not None else frame.graph.value("attr", {"of": owner}, name, at)
    place, _, function = method
    own = frame.code.module(place)
    marks = [each.func if isinstance(each, ast.Call) else each for each in function.decorator_list]
    marks = [each for each in marks if not str(own.expr(each).data).startswith("torch.")]  # which computes the same
    kinds = {getattr(each, "id", getattr(each, "attr", "")) for each in marks}
    if kinds - _METHOD_KINDS or (owner.op == "self" and frame.code.is_open(path, node, name)):
        return frame.graph.value("attr", {"of": owner}, name, at)
    value = frame.graph.value("function", data=(place, function, None), at=at)
    if "staticmethod" in kinds:
        return value
    bound = frame.graph.value("class", data=owner.data) if "classmethod" in kinds else owner
    made = frame.graph.value("bound", {"func": value, "self": bound}, at=at)
    return frame.call(made, [], {}, at) if kinds & PROPERTIES else made


def _of_tensor(graph: Graph, owner: Value, name: str, at: Place) -> Value:
    if name == "shape":
        return graph.value("shape", {"input": owner}, at=at)
    if name == "ndim":
        return applied(graph, "dim", {"input": owner}, at)
    if name in ("mT", "T"):
        return applied(graph, "mT", {"input": owner}, at)
    if name == "data":
        return graph.value("detach", {"input": owner}, at=at)
    if name == "device":
        return graph.value("device", {"of": owner.beneath(_ON_ITS_DEVICE)}, at=at)
    return graph.value("attr", {"of": owner}, name, at)
