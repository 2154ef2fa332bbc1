"""Conversations as token ids: the folder's chat template, Vicuna's own form, or the bare text.

Templates are run by jinja2 in its immutable sandbox: they see the messages and the names of the
special tokens, nothing else. Named styles are the ways in which published evaluations ask.
"""

import dataclasses
import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import jinja2
import jinja2.sandbox
import numpy as np
import tokenizers

from ltd_jax import prompts
from ltd_jax.errors import UserError

Style = Literal[
    "auto", "plain", "template", "llama3", "deepseek", "qwen3", "qwen3-thinking", "vicuna"
]

LLAMA_SYSTEM = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, "
    "while being safe.  Your answers should not include any harmful, unethical, racist, sexist, "
    "toxic, dangerous, or illegal content. Please ensure that your responses are socially unbiased "
    "and positive in nature.\n\nIf a question does not make any sense, or is not factually "
    "coherent, explain why instead of answering something not correct. If you don't know the "
    "answer to a question, please don't share false information."
)
VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
SYSTEM = {"llama3": LLAMA_SYSTEM}
SWITCHES: dict[str, dict[str, Any]] = {
    "qwen3": {"enable_thinking": False},
    "qwen3-thinking": {"enable_thinking": True},
}
# What templates take for today: prompts must be the same tomorrow, or no recording could go on.
# It is the day that the templates of the Llama 3 family use where they have no clock.
TODAY = datetime.date(2024, 7, 26)
SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclasses.dataclass(frozen=True)
class Message:
    """What one side says."""

    role: Literal["system", "user", "assistant"]
    content: str


@dataclasses.dataclass(frozen=True)
class Chat:
    """How a target's folder turns conversations into token ids."""

    tokenizer: tokenizers.Tokenizer
    style: Style  # never "auto"
    template: str | None  # jinja source; None for "plain" and "vicuna"
    special: dict[str, str]  # of SPECIAL, those that the folder names
    place: Path  # the template's file, for messages

    def encode(self, messages: Sequence[Message]) -> np.ndarray:
        """Token ids [T] i32 up to where the assistant begins to speak.

        Raises:
          UserError: the template cannot be rendered, or there is nothing to say.
        """
        text = self.render(messages).encode("utf-8", "replace").decode()  # half a surrogate pair
        ids = self.tokenizer.encode(text, add_special_tokens=self.template is None).ids
        if not ids:
            raise UserError("The prompt has no tokens; give it at least one character.")
        return np.asarray(ids, np.int32)

    def render(self, messages: Sequence[Message]) -> str:
        """The conversation as the text that is tokenised."""
        if self.style == "plain":
            return "\n\n".join(message.content for message in messages)
        if self.style == "vicuna":
            return vicuna_text(messages)
        if self.style in SYSTEM:
            messages = [Message("system", SYSTEM[self.style]), *messages]
        try:
            return (
                environment()
                .from_string(str(self.template))
                .render(
                    messages=[dataclasses.asdict(message) for message in messages],
                    add_generation_prompt=True,
                    tools=None,
                    **self.special,
                    **SWITCHES.get(self.style, {}),
                )
            )
        except Exception as error:  # a template is somebody's program: it may fail in any way
            raise UserError(
                f"The chat template of {self.place} cannot be rendered ({error}); try --style "
                "plain."
            ) from error


def open_chat(folder: Path, style: Style = "auto") -> Chat:
    """The tokenizer and the style of a target's folder.

    "auto" is the folder's template where it has one, "plain" otherwise.

    Raises:
      UserError: there is no tokenizer, or the style wants a template that is not there.
    """
    tokenizer = prompts.load_tokenizer(folder)
    settings, place = tokenizer_settings(folder)
    template, place = find_template(folder, settings, place)
    if style == "auto":
        style = "plain" if template is None else "template"
    if style in ("plain", "vicuna"):
        template = None
    elif template is None:
        raise UserError(
            f"{folder} has no chat template (chat_template.jinja, or chat_template in "
            f"tokenizer_config.json), so --style {style} is not possible; try plain or vicuna."
        )
    special = {name: token_text(settings[name]) for name in SPECIAL if settings.get(name)}
    return Chat(tokenizer, style, template, special, place)


def tokenizer_settings(folder: Path) -> tuple[dict[str, Any], Path]:
    """The fields of tokenizer_config.json; {} where there is none."""
    path = folder / "tokenizer_config.json"
    if not path.exists():
        return {}, path
    try:
        settings = json.loads(prompts.read(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error}).") from error
    if not isinstance(settings, dict):
        raise UserError(f"{path} holds no JSON object.")
    return settings, path


def find_template(folder: Path, settings: dict[str, Any], path: Path) -> tuple[str | None, Path]:
    """The template's source and its file; of several named ones the default."""
    own = folder / "chat_template.jinja"
    if own.exists():
        return prompts.read(own), own
    found = settings.get("chat_template")
    if isinstance(found, list):
        named = {item.get("name"): item.get("template") for item in found if isinstance(item, dict)}
        found = named.get("default")
    if found is not None and not isinstance(found, str):
        raise UserError(f"{path} has a chat_template that is no text.")
    return found, path


def token_text(value: Any) -> str:
    """A special token's text; files have it bare or in an object."""
    return str(value.get("content", "")) if isinstance(value, dict) else str(value)


def environment() -> jinja2.sandbox.ImmutableSandboxedEnvironment:
    """jinja2 as chat templates expect it, sandboxed."""
    found = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )

    def fail(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    found.globals["raise_exception"] = fail
    found.globals["strftime_now"] = TODAY.strftime
    found.filters["tojson"] = lambda value, indent=None: json.dumps(
        value, ensure_ascii=False, indent=indent
    )
    return found


def vicuna_text(messages: Sequence[Message]) -> str:
    """Vicuna v1.1's form, which no folder of it holds."""
    text = VICUNA_SYSTEM
    for message in messages:
        if message.role == "user":
            text += f" USER: {message.content}"
        elif message.role == "assistant":
            text += f" ASSISTANT: {message.content}</s>"
        else:
            text = message.content
    return f"{text} ASSISTANT:"
