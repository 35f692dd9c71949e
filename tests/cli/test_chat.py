"""``moesaic chat`` through a pipe and through a pseudo-terminal."""

import io
import json
import os
import signal
import subprocess
import sys

import pytest
from conftest import MODELS
from kit.edited_gguf import edited
from kit.terminal import Terminal
from rich.console import Console

import moesaic
from moesaic.cli import _chat_display
from moesaic.cli._render import tame
from moesaic.runtime.conversation import Conversation
from moesaic.runtime.results import ReplyEvent

GREEDY = ("--temperature", 0, "-n", 12)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("MOESAIC_CACHE", str(folder))
    return folder


def chat(*args, stdin, **options):
    command = [sys.executable, "-m", "moesaic", "chat", *map(str, args)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, input=stdin, **options
    )


def talk(plan, *texts, **options):
    """What a conversation answers, as the command line prints it."""
    with moesaic.Runtime(plan) as rt:
        conversation = Conversation(rt, **options)
        return [
            "".join(e.text for e in conversation.say(text, temperature=0, max_tokens=12)) + "\n"
            for text in texts
        ]


def test_a_pipe_brings_one_message_a_line(demo_plan):
    ran = chat(demo_plan, *GREEDY, "--system", "Be kind.", stdin="Hello\n\nWhat now?\n")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "".join(talk(demo_plan, "Hello", "What now?", system="Be kind."))
    assert "\x1b" not in ran.stdout + ran.stderr
    assert "tokens/s" in ran.stderr and "of 1024" in ran.stderr


def test_a_model_file(demo_plan):
    from moesaic.demo import DEMO_MODEL

    ran = chat(DEMO_MODEL, *GREEDY, stdin="Hello")
    assert ran.stdout == talk(demo_plan, "Hello")[0]


def test_commands(demo_plan, tmp_path):
    first, second = talk(demo_plan, "Hello", "Well?")
    slash = talk(demo_plan, "/Hello")[0]
    lines = ["Hello", "Well?", "/retry", "/undo", "Well?", "/clear", "Hello", "/drop", "Hello"]
    ran = chat(demo_plan, *GREEDY, stdin="\n".join([*lines, "/undo", "//Hello"]))
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "".join([first, second, second, second, first, first, slash])
    assert "taken back: Well?" in ran.stderr and "1 turns forgotten" in ran.stderr


def test_settings(demo_plan):
    lines = "/set temperature 0\n/set max_tokens 12\n/set\nHello\n/stats\n/exit\nnever said\n"
    ran = chat(demo_plan, stdin=lines)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == talk(demo_plan, "Hello")[0]
    assert "max_tokens = 12" in ran.stderr and "2 messages" in ran.stderr


def test_the_system_message(demo_plan):
    lines = "/system Be kind.\nHello\n/clear\n/system off\nHello\n"
    ran = chat(demo_plan, *GREEDY, stdin=lines)
    kind, plain = talk(demo_plan, "Hello", system="Be kind.") + talk(demo_plan, "Hello")
    assert ran.stdout == kind + plain


def test_save_and_load(demo_plan, tmp_path):
    file = tmp_path / "talk.json"
    saved = chat(demo_plan, *GREEDY, "-s", "Be kind.", stdin=f"Hello\n/save {file}\n")
    assert saved.returncode == 0, saved.stderr
    said = json.loads(file.read_text())
    assert said["system"] == "Be kind." and said["messages"][0]["role"] == "user"
    expected = talk(demo_plan, "Hello", "Well?", system="Be kind.")[1]
    assert chat(demo_plan, *GREEDY, stdin=f"/load {file}\nWell?\n").stdout == expected
    assert chat(demo_plan, *GREEDY, "--load", file, stdin="Well?").stdout == expected


@pytest.mark.parametrize(
    ("arguments", "lines", "said"),
    [
        (("--temperature", -1), "Hello", "temperature"),
        ((), "/set temperature hot", "temperature"),
        ((), "/set warmth 1", "no setting"),
        ((), "/think maybe", "on or off"),
        ((), "/save", "no file is named"),
        ((), "/load nothing.json", "nothing.json"),
        (("--context", 9), "Hello, my dear sir, and all your family", "the context is 9"),
        (("--chat-template", "none.jinja"), "Hello", "none.jinja"),
    ],
)
def test_wrong_input_ends_a_pipe(arguments, lines, said, demo_plan, tmp_path):
    ran = chat(demo_plan, *arguments, stdin=lines, cwd=tmp_path)
    assert ran.returncode == 1
    assert said in ran.stderr and "Traceback" not in ran.stderr
    assert ran.stdout == ""


def test_a_file_that_is_no_conversation(demo_plan, tmp_path):
    for text in ("[]", "{}", '{"messages": [{"role": 1}]}', "\x00"):
        (tmp_path / "talk.json").write_text(text)
        ran = chat(demo_plan, stdin="/load talk.json", cwd=tmp_path)
        assert ran.returncode == 1 and "not a saved conversation" in ran.stderr


def test_an_unknown_command_shows_the_known_ones(demo_plan):
    ran = chat(demo_plan, stdin="/frobnicate\n")
    assert "unknown command /frobnicate" in ran.stderr and "/retry" in ran.stderr


def test_a_model_without_chat_template(plan_of, tmp_path):
    ran = chat(plan_of("llama-f32"), stdin="Hello")
    assert ran.returncode == 1
    assert "no chat template" in ran.stderr and "--chat-template" in ran.stderr
    template = tmp_path / "mine.jinja"
    template.write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    ran = chat(plan_of("llama-f32"), "--chat-template", template, "-n", 3, stdin="Hello")
    assert ran.returncode == 0, ran.stderr


def test_an_interrupt_through_a_pipe(demo_plan):
    command = [sys.executable, "-m", "moesaic", "chat", str(MODELS / "gpt-oss-mxfp4.gguf")]
    with subprocess.Popen(
        [*command, "--temperature", "0", "-t", "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdin.write(b"Hello\n")
        process.stdin.flush()
        process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate()
    assert process.returncode == 130
    assert b"interrupted" in error and b"Traceback" not in error


def test_a_terminal(demo_plan, cache):
    answer = talk(demo_plan, "Hello")[0].strip()
    with Terminal("chat", demo_plan, *GREEDY) as terminal:
        terminal.expect(">>>")
        terminal.type("Hello\r")
        terminal.expect(answer)
        terminal.expect("tokens/s")
        terminal.expect(">>>")
        terminal.type("/nonsense\r")
        terminal.expect("unknown command")
        terminal.expect(">>>")
        terminal.type("/load nowhere.json\r")
        terminal.expect("cannot be read")
        terminal.expect(">>>")
        terminal.type("one\x1b\rtwo\r")  # Alt-Enter
        terminal.expect("tokens/s")
        terminal.expect(">>>")
        terminal.type("not this\x03")  # Ctrl-C clears what is typed
        terminal.type("/undo\r")
        terminal.expect("taken back: one\r\ntwo")
        terminal.expect(">>>")
        terminal.type("\x04")
        assert terminal.end() == 0
    history = (cache / "chat_history").read_text()
    assert "+Hello" in history and "+one\n+two" in history
    assert os.stat(cache / "chat_history").st_mode & 0o077 == 0


def test_history_may_be_off(demo_plan, cache):
    with Terminal("chat", demo_plan, "--no-history") as terminal:
        terminal.expect(">>>")
        terminal.type("/stats\r")
        terminal.expect("threads")
        terminal.expect(">>>")
        terminal.type("\x03")
        assert terminal.end() == 0
    assert not (cache / "chat_history").exists()


def test_ctrl_c_stops_a_reply_and_the_chat_goes_on(plan_of):
    with Terminal("chat", plan_of("gpt-oss-mxfp4"), "--temperature", 0, "-t", 1) as terminal:
        terminal.expect(">>>")
        terminal.type("Hello\r")
        terminal.expect("Hello")
        terminal.expect_more(200)  # far from its end: the terminal holds but a few pages
        terminal.type("\x03")
        terminal.expect("(stopped)")
        terminal.expect(">>>")
        terminal.type("/stats\r")
        terminal.expect("2 messages")
        terminal.expect(">>>")
        terminal.type("/set max_tokens 5\r")
        terminal.expect(">>>")
        terminal.type("Go on\r")
        terminal.expect("5 tokens")
        terminal.expect(">>>")
        terminal.type("\x03")
        assert terminal.end() == 0


@pytest.fixture
def screen(monkeypatch):
    """What goes to a terminal on stdout."""
    file = io.StringIO()
    monkeypatch.setattr(_chat_display, "out", Console(file=file, force_terminal=True, width=80))
    monkeypatch.setattr(_chat_display, "err", Console(file=io.StringIO(), force_terminal=True))
    return file


def event(text, channel="final", message=0, recipient=None, end=None):
    return ReplyEvent(message, "assistant", channel, recipient, None, text, end)


def test_what_a_model_says_does_not_command_the_terminal(screen):
    display = _chat_display.Display(show_thoughts=True)
    display.reply([event("\x1b[2J\x1b]0;t"), event("itle\x07 [bold]x[/] \x9b31m\u202ey\ta\nb")])
    shown = screen.getvalue()
    assert shown == "␛[2J␛]0;title␇ [bold]x[/] �31m�y\ta\nb\n"


def test_thoughts_are_dim_and_may_be_hidden(screen):
    events = [event("Hm.", "analysis"), event("Yes.", message=1, end="return")]
    display = _chat_display.Display(show_thoughts=True)
    display.reply(events)
    assert screen.getvalue() == "\x1b[2m[thoughts]\n\x1b[0m\x1b[2mHm.\x1b[0m\n\nYes.\n"
    display.show_thoughts = False
    screen.truncate(0)
    screen.seek(0)
    display.reply(events)
    assert screen.getvalue() == "Yes.\n"


def test_calls_of_tools_are_named(screen):
    display = _chat_display.Display(show_thoughts=True)
    display.reply([event("{}", "commentary", recipient="functions.[red]f", end="call")])
    assert "[commentary to functions.[red]f]" in screen.getvalue()
    assert screen.getvalue().endswith("{}\n")


def test_tame_text_keeps_what_is_harmless():
    assert tame("naïve 日本\t😀\n") == "naïve 日本\t😀\n"
    assert tame("\x00\x7f\r\x85") == "␀␡␍�"


def test_templates_with_names(tmp_path):
    keys = {
        "tokenizer.chat_template": None,
        "tokenizer.chat_templates": ["tool_use", "plain"],
        "tokenizer.chat_template.tool_use": "{{ messages[0].content }} with tools",
        "tokenizer.chat_template.plain": "{{ messages[0].content }}",
    }
    model = edited(MODELS / "gpt-oss-mxfp4.gguf", tmp_path / "model.gguf", keys)
    refused = chat(model, stdin="ab")
    assert refused.returncode == 1
    assert "but named ones" in refused.stderr and "plain or tool_use" in refused.stderr
    ran = chat(model, *GREEDY, "--chat-template", "plain", stdin="ab")
    assert ran.returncode == 0, ran.stderr
    with moesaic.Runtime(model) as rt:
        assert set(rt.tokenizer.chat_templates) == {"plain", "tool_use"}
        with pytest.raises(moesaic.RequestError, match="no chat template") as caught:
            rt.chat([{"role": "user", "content": "ab"}])
        assert "plain, tool_use" in caught.value.hint


def test_a_template_name_that_is_a_path_is_refused(tmp_path):
    keys = {"tokenizer.chat_template.../../evil": "x"}
    model = edited(MODELS / "gpt-oss-mxfp4.gguf", tmp_path / "model.gguf", keys)
    refused = chat(model, stdin="ab")
    assert refused.returncode == 1
    assert "tokenizer.chat_template.../../evil" in refused.stderr
    assert "letters, digits" in refused.stderr


def test_other_commands_do_not_wait_for_line_editing():
    code = "import sys, moesaic.cli; sys.exit('prompt_toolkit' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
