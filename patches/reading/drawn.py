"""What the updates of each run draw, and which of these draws compress what the model is given."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from .clocks import Course, course_of
from .code import Code
from .draws import Draw, compressing, draws_of, is_alone
from .files import File
from .updates import Update, updates_of_runs


@dataclass(frozen=True, slots=True)
class Drawn:
    """What the updates of one run draw, by where it is compared, and those draws of it that compress."""

    course: Course
    updates: list[Update]
    draws: dict[ast.AST, Draw]
    chosen: dict[ast.AST, Draw]
    undrawn: list[tuple[File, ast.AST, str]]  # its updates on which no draw bears

    @property
    def shared(self) -> dict[ast.AST, Draw]:
        """The draws from generators that others draw from too, by the calls that draw."""
        every = {draw.made.at.node: draw for draw in self.draws.values() if draw.made.at is not None}
        effects = [effect for effect in self.course.reading.effects if effect.at.node not in every]
        return {node: draw for node, draw in every.items() if not is_alone(draw, effects)}

    def others(self, draw: Draw) -> list[Draw]:
        """The draws that are compared elsewhere."""
        return [each for node, each in self.draws.items() if node is not draw.place.node]

    @property
    def scopes(self) -> set[ast.AST]:
        """The scopes of its updates, and the one that leads to them."""
        return {self.course.reading.node, *(update.reading.node for update in self.updates)}


def drawn_by(code: Code) -> tuple[list[Drawn], list[Update]]:
    """The runs of a tree, by what lasts in them; and the updates to which no one loop leads."""
    runs: dict[ast.AST, Drawn] = {}
    strays = []
    for update in updates_of_runs(code):
        course = course_of(code, update)
        if course is None:
            strays.append(update)
            continue
        run = runs.setdefault(course.owner or course.reading.node, Drawn(course, [], {}, {}, []))
        draws = draws_of(course.loss)
        run.updates.append(update)
        if not draws:
            run.undrawn.append(
                (update.reading.file, update.backward, "update, but no draw decides what its loss is made of")
            )
        run.draws.update({draw.place.node: draw for draw in draws})
        run.chosen.update({draw.place.node: draw for draw in compressing(code, update, draws)})
    return list(runs.values()), strays
