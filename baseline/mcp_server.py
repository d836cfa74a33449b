"""The dashboard's manager over the Model Context Protocol, on standard input and output.

Clients start it so:

    python mcp_server.py --snapshots snapshots

Only the client that started it can ask it: it needs no token. What may be asked for is bounded as in the
dashboard, by dashboard/limits.py, which the tools' schemas quote. Errors are one line.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp.server.mcpserver.tools.base import Tool
from pydantic import SkipValidation, ValidationError, WithJsonSchema

from bit_transformer import __version__
from dashboard import requests
from dashboard.limits import RANGES, one_line, shown
from dashboard.manager import DOUBLE, LONGEST_NAME, ModelManager

# What is wrong with a value, requests says: here a value is only described.
LONGEST = RANGES["bytes of text"].most
Text = Annotated[str, SkipValidation, WithJsonSchema({"type": "string", "minLength": 1, "maxLength": LONGEST})]
NoText = Annotated[str, SkipValidation, WithJsonSchema({"type": ["string", "null"], "maxLength": LONGEST})]
Name = Annotated[str, SkipValidation, WithJsonSchema({"type": "string", "minLength": 1, "maxLength": LONGEST_NAME})]
Dimension = Annotated[str, SkipValidation, WithJsonSchema({"type": "string", "enum": list(DOUBLE)})]
Config = Annotated[dict, SkipValidation, WithJsonSchema(requests.SCHEMAS["config"])]
Plan = Annotated[dict, SkipValidation, WithJsonSchema(requests.SCHEMAS["plan"])]


class OneLineServer(MCPServer):
    """Takes no argument that a tool does not know, and says in one line why it refuses."""

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        """Call a tool by name. Raises ToolError."""
        known = {tool.name: tool.input_schema["properties"] for tool in await self.list_tools()}
        for argument in arguments:
            if argument not in known.get(name, arguments):
                expected = ", ".join(known[name]) or "none"
                raise ToolError(f"unknown argument {shown(argument)} of {name}: expected {expected}")
        try:
            return await super().call_tool(name, arguments, context)
        except UnexpectedToolError:
            raise
        except ToolError as error:
            raise ToolError(one_line(reason(error))) from error


def reason(error: ToolError) -> str:
    """Why a call was refused; of arguments that are none, each with what is wrong."""
    if not isinstance(error.__cause__, ValidationError):
        return str(error)
    return "; ".join(
        f"{'.'.join(str(part) for part in each['loc'])}: {each['msg']}"
        for each in error.__cause__.errors(include_url=False, include_input=False)
    )


def build_server(manager: ModelManager | None = None) -> MCPServer:
    """An MCP server whose tools are the operations of a manager, by default of a new one."""
    manager = manager or ModelManager()

    def status() -> dict[str, Any]:
        """Say what model there is, and how far its training has come."""
        return requests.status(manager)

    def init(text: Text, config: Config = None, plan: Plan = None) -> dict[str, Any]:
        """Make a model, to be trained on a text by the plan."""
        return requests.init(manager, text, config, plan)

    def train() -> dict[str, Any]:
        """Carry the training plan out."""
        return requests.train(manager)

    def train_step(text: Text) -> dict[str, Any]:
        """Make one update on a text."""
        return requests.train_step(manager, text)

    def scale_up(dimension: Dimension, plan: Plan = None) -> dict[str, Any]:
        """Double the model's "width", "layers" or "length", keeping what it computes."""
        return requests.scale_up(manager, dimension, plan)

    def infer(text: Text) -> dict[str, Any]:
        """Predict the bit that follows a text."""
        return requests.infer(manager, text)

    def save(name: Name) -> dict[str, Any]:
        """Write a snapshot of the model."""
        return requests.save(manager, name)

    def download(name: Name, text: NoText = None, plan: Plan = None) -> dict[str, Any]:
        """Go on from a snapshot, with a text to train on if there is one."""
        return requests.download(manager, name, text, plan)

    operations = (status, init, train, train_step, scale_up, infer, save, download)
    return OneLineServer(
        "BitTransformerLM",
        version=__version__,
        tools=[closed(Tool.from_function(explains(each))) for each in operations],
    )


def closed(tool: Tool) -> Tool:
    """The tool, whose schema says that it takes no other arguments."""
    tool.parameters["additionalProperties"] = False
    return tool


def explains(tool: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Let the client read why a request was refused; of other errors it learns only that there was one."""

    @wraps(tool)
    def explained(*args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            return tool(*args, **kwargs)
        except requests.REFUSALS as error:
            raise ToolError(one_line(error)) from error

    return explained


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until the client hangs up."""
    parser = argparse.ArgumentParser(prog="mcp_server", description="Serve a model over MCP.")
    parser.add_argument("--snapshots", type=Path, default=Path("snapshots"), help="folder of snapshots")
    build_server(ModelManager(parser.parse_args(argv).snapshots)).run()


if __name__ == "__main__":
    main()
