"""Text: conversations in, token ids out, and token ids back as they come.

The tokenizer is what transformers makes of the folder: tokenizer.json with the tokens that only
tokenizer_config.json, special_tokens_map.json or added_tokens.json name. Folders with older files
alone (a sentencepiece tokenizer.model) are converted by transformers where that is installed.

A conversation is put to the target as its folder's chat template says, in Vicuna's own form, or as
the bare text. Templates are run by jinja2 in its immutable sandbox, with what transformers gives
them; they see the messages and the special tokens, nothing else. Named styles are the ways in which
published evaluations ask. All errors are `UserError`s.
"""

import dataclasses
import datetime
import functools
import importlib
import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox
import numpy as np
import tokenizers
from jinja2 import nodes
from jinja2.parser import Parser
from tokenizers import AddedToken

from ltd_jax import files
from ltd_jax.files import UserError

Style = Literal[
    "auto", "plain", "template", "llama3", "deepseek", "qwen3", "qwen3-thinking", "vicuna"
]

TOKENIZER = "tokenizer.json"
SETTINGS = "tokenizer_config.json"
OLDER_SETTINGS = ("special_tokens_map.json", "added_tokens.json")
OLDER_TOKENIZERS = ("tokenizer.model", "vocab.json", "merges.txt")  # that transformers converts
TEMPLATE = "chat_template.jinja"
TEMPLATES = "additional_chat_templates"  # a folder of named ones
PROCESSOR_TEMPLATE = "chat_template.json"
SPECIAL_TOKENS = tuple(f"{name}_token" for name in "bos eos unk sep pad cls mask".split())
MARKS = ("single_word", "lstrip", "rstrip", "normalized", "special")  # of an added token


def load_tokenizer(folder: str | Path) -> tokenizers.Tokenizer:
    """The tokenizer of a Hugging Face folder with all its added tokens.

    Raises:
      UserError: it is missing or broken, or must be converted and that is not possible here.
    """
    folder = Path(folder)
    path = folder / TOKENIZER
    older = [name for name in OLDER_TOKENIZERS if (folder / name).exists()]
    if older and not path.exists():
        return tokenizers.Tokenizer.from_str(_converted(folder, older[0]))
    content = files.read_text(path)
    try:
        tokenizer = tokenizers.Tokenizer.from_str(content)
    except Exception as error:  # tokenizers raises nothing narrower
        raise UserError(f"{path} is no tokenizer that this version can read: {error}.") from error
    settings = tokenizer_settings(folder)
    try:
        tokenizer.add_tokens(_tokens_beside(tokenizer, folder, settings))
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise UserError(
            f"{folder / SETTINGS} or the files beside it describe an added token that is none "
            f"({error}); copy them anew."
        ) from error
    tokenizer.encode_special_tokens = settings.get("split_special_tokens") is True
    tokenizer.no_truncation()  # of a training, which would cut prompts
    tokenizer.no_padding()
    return tokenizer


@functools.cache
def _converted(folder: Path, older: str) -> str:
    """The tokenizer.json that transformers makes of a folder's older files.

    Raises:
      UserError: transformers is not installed, or cannot convert them.
    """
    files.refuse_pointer(folder / older)
    what = f"There is no {TOKENIZER} in {folder}, only a {older}"
    how = (
        "`AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)` of transformers writes one"
    )
    if importlib.util.find_spec("transformers") is None:
        raise UserError(
            f"{what}: pip install 'ltd-jax[hf]' has it converted at every start, or {how} once."
        )
    try:
        transformers: Any = importlib.import_module("transformers")
        made = transformers.AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
        return str(made.backend_tokenizer.to_str())
    except Exception as error:  # whatever transformers and its converters raise
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise UserError(
            f"{what}, which transformers cannot convert here ({reason}); pip install sentencepiece "
            f"tiktoken protobuf, or where it can, {how}."
        ) from error


def tokenizer_settings(folder: Path) -> dict[str, Any]:
    """The fields of tokenizer_config.json; special_tokens_map.json wins where that is older.

    Lists of extra special tokens are put together.
    """
    settings = read_settings(folder / SETTINGS)
    if "added_tokens_decoder" in settings:
        return settings
    older, extra = read_settings(folder / OLDER_SETTINGS[0]), "extra_special_tokens"
    if isinstance(settings.get(extra), list) and isinstance(older.get(extra), list):
        older[extra] = [*settings[extra], *older[extra]]
    return settings | older


def special_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """The texts of the special tokens that settings name, by name; the standard ones first."""
    own = [name for name in settings if name.endswith("_token") and name not in SPECIAL_TOKENS]
    more = settings.get("extra_special_tokens")  # with names of their own, or a list
    named = {name: settings.get(name) for name in (*SPECIAL_TOKENS, *own)}
    named |= more if isinstance(more, dict) else {}
    return {
        name: token_text(value) for name, value in named.items() if isinstance(value, str | dict)
    }


def token_text(value: Any) -> str:
    """A special token's text; files have it bare or in an object."""
    return str(value.get("content", "")) if isinstance(value, dict) else str(value)


def _tokens_beside(
    tokenizer: tokenizers.Tokenizer, folder: Path, settings: Mapping[str, Any]
) -> list[AddedToken]:
    """The added tokens that only the files beside tokenizer.json name, in the order of their ids.

    As transformers takes them: those of added_tokens_decoder, or of added_tokens.json where that
    field is missing, then special tokens that are still missing.
    """
    there = tokenizer.get_added_tokens_decoder()
    listed = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    extra = list(listed.values() if isinstance(listed, dict) else listed)
    named = [settings[name] for name in special_tokens(settings) if name in settings]
    special = {token_text(value) for value in (*named, *extra)}
    decoder = settings.get("added_tokens_decoder")
    if decoder is not None:
        by_id = {int(number): _added_token(token) for number, token in decoder.items()}
    else:
        older = read_settings(folder / OLDER_SETTINGS[1])
        by_id = {
            number: _added_token(text, special=text in special)
            for text, number in older.items()
            if number not in there
        }
    known = {repr(token) for token in there.values()}
    added = [token for _, token in sorted(by_id.items()) if repr(token) not in known]
    texts = {token.content for token in (*there.values(), *added)}
    for value in (*named, *extra):
        if (text := token_text(value)) and text not in texts:
            added.append(_added_token(value, special=True))
            texts.add(text)
    for token in added:
        token.special = token.special or token.content in special
    return added


def _added_token(value: Any, **marks: bool) -> AddedToken:
    """An added token as files have it: a text, or an object with its marks."""
    if isinstance(value, dict):
        marks |= {mark: value[mark] for mark in MARKS if mark in value}
    return AddedToken(value if isinstance(value, str) else value["content"], **marks)


def stop_tokens(folder: str | Path) -> tuple[int, ...]:
    """All tokens that end an answer (`stop_sources`), each once; () where no file names one."""
    return _all_of(stop_sources(folder))


def _all_of(sources: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(token for ids in sources.values() for token in ids))


def stop_sources(folder: str | Path) -> dict[str, tuple[int, ...]]:
    """The ids that end an answer, by the file that says so.

    generation_config.json names them, or config.json where that file or its field is missing; then
    there are the tokenizer's own end and the special token that the chat template puts behind an
    answer, which chat models are trained to end with.

    Raises:
      UserError: an eos_token_id is no id.
    """
    folder, sources = Path(folder), dict[str, tuple[int, ...]]()
    for name in ("generation_config.json", "config.json"):
        value = read_settings(folder / name).get("eos_token_id", [])
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(is_integer(token) and 0 <= token < 2**31 for token in ids):
            raise UserError(f"{folder / name}: eos_token_id must be a token's id or a list of ids.")
        if ids:
            sources[name] = tuple(ids)
            break
    try:
        chat = open_chat(folder)
    except UserError:  # which is said where the tokenizer is needed
        return sources
    end = chat.tokenizer.token_to_id(chat.special.get("eos_token", ""))
    behind = chat.end_of_answer()
    found = {SETTINGS: end, "the chat template": behind}
    return sources | {name: (token,) for name, token in found.items() if token is not None}


def stop_doubts(folder: Path) -> list[str]:
    """A sentence for every token that only the tokenizer or the template ends answers with."""
    sources = stop_sources(folder)
    names = [name for name in sources if name.endswith("config.json") and name != SETTINGS]
    said = {token for name in names for token in sources[name]}
    others = {
        token: [name for name in sources if token in sources[name]]
        for token in _all_of(sources)
        if token not in said
    }
    if not others:
        return []
    text_of = load_tokenizer(folder).id_to_token
    shown = lambda tokens: ", ".join(f"{text_of(token)!r} ({token})" for token in tokens)
    own = f"{names[0]} with {shown(sorted(said))}" if said else "config.json names no end"
    return [
        f"In {folder}, {' and '.join(by)} {'end' if len(by) > 1 else 'ends'} answers with "
        f"{shown([token])}, {own}; decoding stops at each of them."
        for token, by in others.items()
    ]


def id_doubts(folder: Path, tokenizer: tokenizers.Tokenizer) -> list[str]:
    """A sentence where tokens have other ids than tokenizer_config.json says.

    The tokenizer numbers what it lacks from its own end on, as transformers' does.
    """
    decoder = tokenizer_settings(folder).get("added_tokens_decoder") or {}
    moved = [
        f"{token_text(token)!r} is {tokenizer.token_to_id(token_text(token))}, not {number}"
        for number, token in decoder.items()
        if tokenizer.token_to_id(token_text(token)) != int(number)
    ]
    if not moved:
        return []
    more = f", and {len(moved) - 1} more are" if len(moved) > 1 else ""
    return [
        f"In {folder}, {moved[0]} as {SETTINGS} says{more}: {TOKENIZER} and {SETTINGS} are not of "
        "one model."
    ]


def read_settings(path: Path) -> dict[str, Any]:
    """The fields of a JSON file, {} where there is none; UserError where it is no JSON object."""
    if not path.exists():
        return {}
    try:
        settings = json.loads(files.read_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}).") from error
    if not isinstance(settings, dict):
        raise UserError(f"{path} holds no JSON object.")
    return settings


def is_integer(value: Any) -> bool:
    """Whether a JSON value is an integer; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


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
VICUNA_TURNS = {"user": ("USER", " "), "assistant": ("ASSISTANT", "</s>")}
SYSTEM_PROMPTS = {"llama3": LLAMA_SYSTEM}
SWITCHES: dict[str, dict[str, Any]] = {
    "qwen3": {"enable_thinking": False},
    "qwen3-thinking": {"enable_thinking": True},
}
# What templates take for today: prompts must be the same tomorrow, or no recording could go on.
# It is the day that the templates of the Llama 3 family use where they have no clock.
TODAY = datetime.date(2024, 7, 26)
MARKER = "ltd"  # an answer whose end is looked for


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
    special: dict[str, str]  # the special tokens that the folder names
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

    def render(self, messages: Sequence[Message], *, answering: bool = True) -> str:
        """The conversation as the text that is tokenised.

        Args:
          answering: end it where the assistant begins to speak, if there is a template.
        """
        if self.style == "plain":
            return "\n\n".join(message.content for message in messages)
        if self.style == "vicuna":
            return vicuna_text(messages)
        is_told = any(message.role == "system" for message in messages)
        if self.style in SYSTEM_PROMPTS and not is_told:
            messages = [Message("system", SYSTEM_PROMPTS[self.style]), *messages]
        try:
            return _compiled(str(self.template)).render(
                messages=[dataclasses.asdict(message) for message in messages],
                add_generation_prompt=answering,
                tools=None,
                documents=None,
                **self.special,
                **SWITCHES.get(self.style, {}),
            )
        except Exception as error:  # a template is somebody's program: it may fail in any way
            raise UserError(
                f"The chat template of {self.place} cannot be rendered ({error}); try `style` "
                "plain."
            ) from error

    def end_of_answer(self) -> int | None:
        """The special token that the template puts behind an answer; None where it puts none."""
        if self.template is None:
            return None
        talk = [Message("user", "1"), Message("assistant", MARKER)]
        try:
            _, found, behind = self.render(talk, answering=False).rpartition(MARKER)
        except UserError:  # not every template takes answers
            return None
        added = self.tokenizer.get_added_tokens_decoder()
        ids = self.tokenizer.encode(behind, add_special_tokens=False).ids if found else []
        return next((token for token in ids if token in added and added[token].special), None)


def open_chat(folder: Path, style: Style = "auto") -> Chat:
    """The tokenizer and the style of a target's folder.

    "auto" is the folder's template where it has one, "plain" otherwise.

    Raises:
      UserError: there is no tokenizer, or the style wants a template that is not there.
    """
    tokenizer, settings = load_tokenizer(folder), tokenizer_settings(folder)
    template, place = None, folder / SETTINGS
    if style not in ("plain", "vicuna"):
        template, place = find_template(folder, settings)
    if style == "auto":
        style = "plain" if template is None else "template"
    if template is None and style not in ("plain", "vicuna"):
        raise UserError(
            f"{folder} has no chat template ({TEMPLATE}, or chat_template in {SETTINGS}), so "
            f"`style` {style} is not possible; try plain or vicuna."
        )
    return Chat(tokenizer, style, template, special_tokens(settings), place)


def find_template(folder: Path, settings: Mapping[str, Any]) -> tuple[str | None, Path]:
    """The template's source and its file; of several named ones the default.

    Files of templates win over tokenizer_config.json, and that over the file of a processor.

    Raises:
      UserError: none of several templates is the default, or one is no text.
    """
    paths = {path.stem: path for path in sorted((folder / TEMPLATES).glob("[!.]*.jinja"))}
    paths |= {"default": folder / TEMPLATE} if (folder / TEMPLATE).exists() else {}
    place, found = folder / SETTINGS, settings.get("chat_template")
    if paths:
        place = paths.get("default", folder / TEMPLATES)
        found = {name: files.read_text(path) for name, path in paths.items()}
    elif found is None:
        place = folder / PROCESSOR_TEMPLATE
        found = read_settings(place).get("chat_template")
    if isinstance(found, list):
        found = {item.get("name"): item.get("template") for item in found if isinstance(item, dict)}
    if isinstance(found, dict):
        if found and "default" not in found:
            raise UserError(
                f"{place} has several chat templates ({', '.join(map(str, found))}) and none of "
                f"them is the default; copy one to {folder / TEMPLATE}, or give `style` plain."
            )
        found = found.get("default")
    if found is not None and not isinstance(found, str):
        raise UserError(f"{place} has a chat_template that is no text.")
    return found, place


class _Generation(jinja2.ext.Extension):
    """The tags {% generation %} and {% endgeneration %} around what trainers learn from."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        """The block as a call of what is in it, so that it has a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_inside"), [], [], body).set_lineno(line)

    def _inside(self, caller: Callable[[], str]) -> str:
        return caller()


@functools.lru_cache(maxsize=32)
def _compiled(template: str) -> jinja2.Template:
    """A template, compiled in a sandbox with what chat templates expect."""
    found = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols", _Generation],
    )

    def fail(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    def to_json(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    found.globals["raise_exception"] = fail
    found.globals["strftime_now"] = TODAY.strftime
    found.filters["tojson"] = to_json
    return found.from_string(template)


def vicuna_text(messages: Sequence[Message]) -> str:
    """Vicuna v1.1's form, which no folder of it holds, as FastChat's code writes it.

    A space stands behind what the user says and none behind an answer's end.
    """
    told = [message.content for message in messages if message.role == "system"]
    text = f"{told[0] if told else VICUNA_SYSTEM} "
    for message in messages:
        if message.role != "system":
            speaker, end = VICUNA_TURNS[message.role]
            text += f"{speaker}: {message.content}{end}" if message.content else f"{speaker}:"
    return f"{text}ASSISTANT:"


UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # what tokenizers show for bytes that make no character
WINDOW = 64  # tokens from which on only the last ones are decoded anew for every piece


class TextStream:
    """The text of one answer, piece by piece; what is shown is never taken back.

    A character whose bytes come in several tokens is held back until it is whole. Bytes that make
    no character are shown as the tokenizer shows them, when others follow or the answer ends.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.tokens: list[int] = []
        self.start = 0  # of the tokens that are decoded anew
        self.whole = 0  # tokens whose text is shown to its end
        self.shown = ""  # of the text from `start` on

    def add(self, tokens: tuple[int, ...]) -> str:
        """The text that became whole with these tokens."""
        self.tokens += tokens
        text = self._text(self.start)
        whole = text.rstrip(UNKNOWN)
        if not whole.startswith(self.shown):
            if whole != text:
                return ""  # bytes that are shown apart until the last of them is here
            return self._restart()
        piece, self.shown = whole[len(self.shown) :], whole
        if whole == text:
            self._advance()
        return piece

    def end(self) -> str:
        """What is left, whole or not."""
        text = self._text(self.start)
        if text.startswith(self.shown):
            return text[len(self.shown) :]
        return self._text(self.whole)

    def _text(self, start: int) -> str:
        return self.tokenizer.decode(self.tokens[start:])

    def _restart(self) -> str:
        """What is not shown yet, where the text before it was given up as no character."""
        self.start, piece = self.whole, self._text(self.whole)
        self.whole, self.shown = len(self.tokens), piece
        return piece

    def _advance(self) -> None:
        """All is shown; of a long text the window moves, where there is something to see in it."""
        before, self.whole = self.whole, len(self.tokens)
        if self.whole - self.start > WINDOW and (text := self._text(before)):
            self.start, self.shown = before, text
