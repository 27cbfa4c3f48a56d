"""What messages advise must be possible where they are shown."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from typer.main import get_group

import napari_affmae
from napari_affmae.cli.app import app

PACKAGE = Path(napari_affmae.__file__).parent
COMMANDS = get_group(app).commands
OPTION = re.compile(r"--[a-z][a-z-]*")
ENTRIES = {name: f"run_{name.partition('-')[0]}" for name in COMMANDS}


def options_of(command):
    params = COMMANDS[command].params
    return {name for item in params for name in (*item.opts, *item.secondary_opts)} | {"--help"}


def without_docstrings(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            node.body[0] = ast.Pass()
    return tree


def named_options(tree):
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {option for text in texts if isinstance(text, str) for option in OPTION.findall(text)}


def trees(*folders):
    for folder in folders:
        for path in sorted((PACKAGE / folder).rglob("*.py")):
            yield path, without_docstrings(ast.parse(path.read_text(encoding="utf-8")))


@cache
def modules():
    """Modules of the command line; those of the commands' own help are left out."""
    return {path.stem: tree for path, tree in trees("cli") if path.stem != "app"}


@cache
def functions():
    """Functions and methods by module and name."""
    return {
        (module, node.name): node
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    }


@cache
def imported(module):
    """Modules of the command line by the names that a module takes from them."""
    return {
        name.name: node.module.rpartition(".")[2]
        for node in ast.walk(modules()[module])
        if isinstance(node, ast.ImportFrom) and node.module
        for name in node.names
    }


def referred(module, function):
    """Functions that a function may call."""
    for node in ast.walk(function):
        if isinstance(node, ast.Name):
            yield imported(module).get(node.id, module), node.id
        elif isinstance(node, ast.Attribute):  # a method of whatever class
            yield from (place for place in functions() if place[1] == node.attr)


@cache
def reachable(command):
    """Functions that a command may call."""
    entry = ENTRIES[command]
    waiting = [place for place in functions() if place[1] == entry]
    assert waiting, entry
    seen = set()
    while waiting:
        place = waiting.pop()
        if place not in seen and place in functions():
            seen.add(place)
            waiting += referred(place[0], functions()[place])
    return seen


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_messages_of_a_command_name_its_own_options(command):
    named = {option for place in reachable(command) for option in named_options(functions()[place])}
    assert named <= options_of(command)


def test_every_option_that_is_named_is_looked_at():
    """Each function with an option in its words can be reached from a command."""
    of_all_commands = {("__init__", "main")}  # names the option for help, which each command has
    speaking = {place for place, function in functions().items() if named_options(function)}
    assert len(speaking) > 5
    assert speaking <= set().union(*map(reachable, COMMANDS)) | of_all_commands


def test_only_the_command_line_speaks_of_options():
    """Engine and data are used by docks and notebooks too; some write whole commands."""
    write_commands = (PACKAGE / "widgets", PACKAGE / "engine" / "export" / "documents.py")
    everywhere = set().union(*map(options_of, COMMANDS))
    for path, tree in trees("data", "engine", "model", "widgets"):
        allowed = everywhere if any(map(path.is_relative_to, write_commands)) else set()
        assert named_options(tree) <= allowed, path
