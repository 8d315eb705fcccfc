"""The command `recipes`, also without the packages for training; the stages of an export on a terminal."""

import io
import sys

import pytest

from tests.support import exit_code
from visdeploy.cli import console


@pytest.mark.parametrize("words", [("recipes",), ("recipes", "list")])
def test_recipes_are_listed(words, capsys):
    assert exit_code(*words) == 0
    printed = capsys.readouterr().out
    for word in ("own_data", "visolo_tiny_demo", "tevit msgshift"):
        assert word in printed


def test_a_recipe_is_printed_as_it_is(capsys):
    assert exit_code("recipes", "show", "own_data") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# A training on videos of your own")
    assert "\n  - {name: backbone" not in printed
    assert "schedule: cosine\n" in printed


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), ("iterations", "whole number", "required", "Number of optimiser steps")),
        (("optim",), ("clip_norm", "number", "0.0", "Maximum global norm")),
        (("visolo",), ("memory_slots", "16")),
        (("flip",), ("mode",)),
    ],
)
def test_fields_are_described(words, expected, capsys, monkeypatch):
    monkeypatch.setattr(console.stdout, "width", 300)
    assert exit_code("recipes", "fields", *words) == 0
    printed = capsys.readouterr().out
    for word in expected:
        assert word in printed


def test_a_typo_is_one_line(capsys):
    assert exit_code("recipes", "show", "own_dat") == 1
    printed = capsys.readouterr().err
    assert printed.startswith("ConfigError: no such recipe: own_dat")
    assert "Did you mean 'own_data'?" in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize("words", [("recipes",), ("recipes", "show", "own_data"), ("recipes", "fields")])
def test_without_the_packages_for_training(words, capsys, monkeypatch):
    for name in [each for each in sys.modules if each.split(".")[0] in ("visdeploy_training", "torch", "yaml")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert exit_code(*words) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("DependencyError: reading recipes needs the module 'torch', which is not installed")
    assert "pip install 'visdeploy[train]'" in printed


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "shown"), [(Terminal, True), (io.StringIO, False)])
def test_stages_are_one_line_on_a_terminal_and_nothing_in_a_pipe(stream, shown, monkeypatch):
    written = stream()
    monkeypatch.setattr(sys, "stderr", written)
    monkeypatch.setenv("TERM", "xterm")
    with console.stages() as show:
        show("reading a.pth")
        show("tracing " + 300 * "x")
    text = written.getvalue()
    assert ("reading a.pth" in text) == shown
    assert "\n" not in text
    if shown:
        assert text.endswith("\r\x1b[2K")
        assert max(map(len, text.split("\r\x1b[2K"))) < console.stderr.width
    else:
        assert text == ""
