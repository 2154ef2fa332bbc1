"""Conversations: templates as folders have them, sandboxed; named styles; clear sentences."""

import json

import pytest

from ltd_jax import text as texts
from ltd_jax.files import ASSETS, UserError
from ltd_jax.text import Message, open_chat

# In the manner of ChatML templates: a loop, a condition, the generation header, a switch.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}\n"
    "    {%- if message.role not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role') }}{% endif %}"
    "<{{ message.role }}>{{ message.content | trim }}</>\n"
    "{%- endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    "{% if enable_thinking is defined and not enable_thinking %}<no-think>{% endif %}"
)
TALK = [Message("user", "one "), Message("assistant", "two"), Message("user", "three")]


@pytest.fixture
def folder(tmp_path):
    """The embedded tokenizer without any template."""
    content = (ASSETS / "target" / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(content)
    return tmp_path


def configure(folder, **settings):
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_the_folders_template(folder):
    configure(folder, bos_token="<s>", chat_template=TEMPLATE)
    speaker = open_chat(folder)
    assert speaker.style == "template"
    expected = "<s><user>one</><assistant>two</><user>three</><assistant>"
    assert speaker.render(TALK) == expected
    assert speaker.tokenizer.decode(speaker.encode(TALK).tolist()) == expected


def test_a_file_of_its_own_wins(folder):
    configure(folder, chat_template=TEMPLATE, bos_token={"content": "<s>", "lstrip": False})
    (folder / "chat_template.jinja").write_text("{{ bos_token }}{{ messages[0]['content'] }}")
    assert open_chat(folder).render(TALK) == "<s>one "


def test_of_named_templates_the_default(folder):
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    assert open_chat(configure(folder, chat_template=named)).render(TALK) == "yes"


def test_named_styles(folder):
    configure(folder, bos_token="", chat_template=TEMPLATE)
    render = lambda style: open_chat(folder, style).render(TALK[:1])
    assert render("deepseek") == "<user>one</><assistant>"
    assert render("qwen3") == "<user>one</><assistant><no-think>"
    assert render("qwen3-thinking") == "<user>one</><assistant>"
    assert render("llama3") == f"<system>{texts.LLAMA_SYSTEM}</><user>one</><assistant>"
    assert render("plain") == "one "


def test_vicuna_needs_no_template(folder):
    expected = f"{texts.VICUNA_SYSTEM} USER: one  ASSISTANT: two</s> USER: three ASSISTANT:"
    assert open_chat(folder, "vicuna").render(TALK) == expected
    other = [Message("system", "Be brief."), TALK[0]]
    assert open_chat(folder, "vicuna").render(other) == "Be brief. USER: one  ASSISTANT:"


def test_without_a_template_the_text_is_plain(folder):
    speaker = open_chat(folder)
    assert speaker.style == "plain" and speaker.render(TALK) == "one \n\ntwo\n\nthree"


def test_today_is_the_same_tomorrow(folder):
    configure(folder, chat_template="{{ strftime_now('%d %b %Y') }}")
    assert open_chat(folder).render(TALK) == "26 Jul 2024"


def test_loops_may_be_left(folder):
    template = "{% for message in messages %}{{ message.role }}{% break %}{% endfor %}"
    assert open_chat(configure(folder, chat_template=template)).render(TALK) == "user"


def test_half_a_character_is_no_crash(folder):
    speaker = open_chat(folder)
    ids = speaker.encode([Message("user", "a\udcff")]).tolist()
    assert speaker.tokenizer.decode(ids) == "a?"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for x in %}", "cannot be rendered"),
        ("{{ raise_exception('only one turn') }}", "only one turn"),
        ("{{ messages[9].content.strip() }}", "cannot be rendered"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ messages.append(1) }}", "cannot be rendered"),
        ("{{ 1 // 0 }}", "zero"),
        ("{{ range(10 ** 9) | list }}", "cannot be rendered"),
    ],
)
def test_a_template_that_fails_or_reaches_out(folder, template, words):
    speaker = open_chat(configure(folder, chat_template=template))
    with pytest.raises(UserError, match=words) as caught:
        speaker.encode(TALK)
    assert str(folder / "tokenizer_config.json") in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "style", "words"),
    [
        ("{", "auto", "not valid JSON"),
        ("[]", "auto", "no JSON object"),
        ('{"chat_template": 3}', "auto", "no text"),
        ("{}", "qwen3", "no chat template .* try plain or vicuna"),
    ],
)
def test_what_is_refused(folder, settings, style, words):
    (folder / "tokenizer_config.json").write_text(settings)
    with pytest.raises(UserError, match=words):
        open_chat(folder, style)


def test_an_empty_prompt_is_refused(folder):
    with pytest.raises(UserError, match="no tokens"):
        open_chat(folder).encode([Message("user", "")])
