"""Scripts of several chat templates: what is forced, and what ends a question and an answer."""

from pathlib import Path

import pytest

from ltd_jax.draft_training import script
from ltd_jax.draft_training.talk import ANSWER, USER
from ltd_jax.files import UserError
from ltd_jax.text import Chat
from tests.system import tiny_pair

EACH = "{% for message in messages %}"
CHATML = (
    EACH + "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BRACKETS = (
    EACH + "{% if message.role == 'user' %}[INST] {{ message.content }} [/INST]"
    "{% elif message.role == 'assistant' %} {{ message.content }}<|end|>{% endif %}{% endfor %}"
)
RESPONSE = (
    EACH + "{% if message.role == 'user' %}### Ask:\n{{ message.content }}\n\n"
    "{% elif message.role == 'assistant' %}### Say:\n{{ message.content }}<|end|>\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}### Say:\n{% endif %}"
)
REFUSING = EACH + "{{ raise_exception('no') if message.role == 'assistant' }}{% endfor %}x"


def chat_of(template, style="template"):
    tokenizer = tiny_pair.tokenizer("<|im_start|>", "<|im_end|>")
    return Chat(tokenizer, style, template, {}, Path("a/template"))


def text(chat, tokens):
    return chat.tokenizer.decode(list(tokens), skip_special_tokens=False)


@pytest.mark.parametrize(
    ("template", "head", "to_answer", "to_user", "system"),
    [
        (
            CHATML,
            "<|im_start|>user\n",
            "<|im_end|>\n<|im_start|>assistant\n",
            "\n<|im_start|>user\n",
            True,
        ),
        (BRACKETS, "[INST] ", " [/INST] ", "[INST] ", False),
        (RESPONSE, "### Ask:\n", "\n\n### Say:\n", "\n### Ask:\n", False),
    ],
)
def test_what_a_template_puts_around_turns(template, head, to_answer, to_user, system):
    chat = chat_of(template)
    end = "<|im_end|>" if template == CHATML else "<|end|>"
    stop = chat.tokenizer.token_to_id(end)
    found = script.of_chat(chat, (stop,))
    openings = [text(chat, one.tokens) for one in found.openings]
    assert openings[0] == head and f"{head}What is" in openings
    assert all(one.speaker == USER for one in found.openings)
    assert len(set(openings)) == len(openings)
    assert any(script.SYSTEMS[0] in one for one in openings) == system
    if template == BRACKETS:  # what leads to an answer has no space that the answer brings
        to_answer = to_answer.rstrip()
    assert text(chat, found.to_answer).rstrip(" ") == to_answer.rstrip(" ")
    assert text(chat, found.to_user) == to_user
    assert found.ends == (stop,) and found.asked_ends == found.to_answer[:1]


def test_a_target_without_a_template_writes_texts():
    chat = chat_of(None, "plain")
    found = script.of_chat(chat, (256,))
    assert {one.speaker for one in found.openings} == {ANSWER} and found.to_user == ()
    assert text(chat, found.openings[0].tokens) == script.STARTS[0]


def test_a_template_that_takes_no_answers_is_refused():
    with pytest.raises(UserError, match="a/template does not put .* give `questions`"):
        script.of_chat(chat_of(REFUSING), (256,))


def test_prompts_are_openings_of_answers():
    found = script.of_prompts([[1, 2], [3]], (9,))
    assert [tuple(one) for one in found.openings] == [((1, 2), ANSWER), ((3,), ANSWER)]
    assert found.to_answer == found.to_user == () and found.ends == (9,)
