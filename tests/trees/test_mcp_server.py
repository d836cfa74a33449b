"""The MCP server: what it says of itself and its tools, and how it refuses."""

import asyncio
import json
import os
import re
import select
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from mcp import Client
from trees.asking import CONFIG, TEXT

import bit_transformer
from dashboard import limits, requests
from dashboard.manager import ModelManager
from mcp_server import build_server


def asked(manager, *calls):
    """The answers to calls, each a tool's name and its arguments."""

    async def talk():
        async with Client(build_server(manager)) as client:
            return [await client.call_tool(name, arguments) for name, arguments in calls]

    return asyncio.run(talk())


def described():
    """The version of a server, and its tools by name."""

    async def talk():
        async with Client(build_server(ModelManager())) as client:
            return client.server_info.version, {tool.name: tool for tool in (await client.list_tools()).tools}

    return asyncio.run(talk())


def test_it_gives_its_version():
    assert described()[0] == bit_transformer.__version__


def test_the_version_is_that_of_the_package():
    project = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text())["project"]
    assert bit_transformer.__version__ == project["version"]


@pytest.mark.parametrize(("member", "kinds"), [("config", requests.CONFIG), ("plan", requests.PLAN)])
def test_options_are_listed_with_type_and_range(member, kinds):
    schema = described()[1]["init"].input_schema["properties"][member]
    assert schema["additionalProperties"] is False
    assert schema["properties"].keys() == kinds.keys()
    for name, option in schema["properties"].items():
        kind, optional = limits.kind_of(kinds[name])
        word = {bool: "boolean", int: "integer", float: "number"}[kind]
        assert option["type"] == ([word, "null"] if optional else word)
        if kind is not bool:
            assert (option["minimum"], option["maximum"]) == (limits.RANGES[name].least, limits.RANGES[name].most)


def test_every_tool_says_which_arguments_it_takes():
    tools = described()[1]
    for tool in tools.values():
        assert tool.input_schema["additionalProperties"] is False
    assert tools["init"].input_schema["required"] == ["text"]
    assert tools["download"].input_schema["required"] == ["name"]
    assert tools["scale_up"].input_schema["properties"]["dimension"]["enum"] == ["width", "layers", "length"]
    assert tools["infer"].input_schema["properties"]["text"]["type"] == "string"


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("init", {}, "text"),
        ("init", {"text": 3}, "text"),
        ("init", {"text": None}, "text"),
        ("init", {"text": ""}, "text"),
        ("init", {"text": TEXT, "surprise": 1}, "surprise"),
        ("init", {"text": TEXT, "config": 7}, "object"),
        ("init", {"text": TEXT, "config": [1]}, "object"),
        ("init", {"text": TEXT, "config": "wide"}, "object"),
        ("init", {"text": TEXT, "config": {"d_modl": 16}}, "d_modl"),
        ("init", {"text": TEXT, "config": {"d_model": "16"}}, "d_model"),
        ("init", {"text": TEXT, "config": {"d_model": True}}, "d_model"),
        ("init", {"text": TEXT, "config": {"d_model": 2_000_000_000}}, "d_model must be from 1 to"),
        ("init", {"text": TEXT, "config": {"num_layers": 10**18}}, "num_layers must be from 1 to"),
        ("init", {"text": TEXT, "config": CONFIG, "plan": {"lr": 1e30}}, "lr must be from"),
        ("init", {"text": TEXT, "config": CONFIG, "plan": {"rows": 1}}, "rows"),
        ("init", {"text": TEXT, "config": CONFIG | {"nhead": 3}}, "multiple of nhead"),
        ("train", {"epochs": 3}, "epochs"),
        ("scale_up", {"dimension": "depth\nwidth"}, "width, layers, length"),
        ("save", {"name": "a" * 300}, "name"),
        ("save", {"name": "../up"}, "name"),
        ("download", {"name": "none"}, "there is no snapshot"),
        ("infer", {"text": "a" * 2_000_000}, "bytes of text"),
        ("infer", {"text": "\n".join("ab")} | {"a\nb" * 200: 1}, "unknown argument"),
        ("nothing", {}, "nothing"),
    ],
)
def test_what_is_refused_is_said_in_one_line_and_changes_nothing(tmp_path, name, arguments, reason):
    manager = ModelManager(tmp_path)
    manager.init(requests.text_rows(TEXT, 90), **CONFIG)
    before = manager.status()
    (answer,) = asked(manager, (name, arguments))
    assert answer.is_error
    (content,) = answer.content
    assert reason in content.text
    assert len(content.text.splitlines()) == 1
    assert len(content.text) < 500
    assert manager.status() == before


def test_a_text_that_looks_like_json_is_a_text(tmp_path):
    manager = ModelManager(tmp_path)
    text = json.dumps([TEXT])
    config, plan = json.dumps(CONFIG), None  # as some clients send objects
    init = {"text": text, "config": config, "plan": plan}
    answers = asked(manager, ("init", init), ("save", {"name": "one"}), ("download", {"name": "one", "text": text}))
    assert [answer.content[0].text for answer in answers if answer.is_error] == []
    assert answers[2].structured_content["plan"]["rows"] == len(manager.data)


def as_the_readme_says(tree, snapshots):
    """The command of the configuration of a client that the README shows."""
    readme = Path(__file__).parents[2].joinpath("README.md").read_text(encoding="utf-8")
    (server,) = json.loads(re.search(r"```json\n(.*?)```", readme, re.DOTALL)[1])["mcpServers"].values()
    places = {"/path/to/python": sys.executable, "/path/to/tree": str(tree), "/path/to/snapshots": str(snapshots)}
    words = [server["command"], *server["args"]]
    return [re.sub("|".join(places), lambda found: places[found[0]], word) for word in words]


def test_a_server_in_a_process_of_its_own_answers(tree, tmp_path):
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    words = as_the_readme_says(tree, tmp_path / "snapshots")
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "a test", "version": "1"}}
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log) as process,
    ):

        def send(method, params, **more):
            message = {"jsonrpc": "2.0", "method": method, "params": params, **more}
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()

        def ask(method, params):
            send(method, params, id=1)
            assert select.select([process.stdout], [], [], 100)[0], "the server says nothing"
            return json.loads(process.stdout.readline())["result"]

        try:
            assert ask("initialize", hello)["serverInfo"]["version"] == bit_transformer.__version__
            send("notifications/initialized", {})
            made = ask("tools/call", {"name": "init", "arguments": {"text": TEXT, "config": CONFIG}})
            assert made["structuredContent"]["ready"] is True
            wrong = ask("tools/call", {"name": "save", "arguments": {"name": "../up"}})
            assert wrong["isError"] is True
        finally:
            process.kill()
