"""Conversations: tokenizers and templates as transformers reads a folder; named styles; ends."""

import importlib.util
import json
import types

import pytest

from ltd_jax import text as texts
from ltd_jax.files import ASSETS, UserError
from ltd_jax.models.hf import inspect
from ltd_jax.text import Message, open_chat
from tests.models.golden import chats

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


GOLDEN = json.loads(chats.GOLDEN.read_text(encoding="utf-8"))["folders"]


def test_every_folder_has_golden_texts():
    assert GOLDEN.keys() == chats.FOLDERS.keys() and len(GOLDEN) >= 30
    made = [found for talks in GOLDEN.values() for found in talks.values()]
    assert sum(found is not None for found in made) > 150


@pytest.mark.parametrize("name", chats.FOLDERS)
def test_texts_and_ids_are_transformers(name, tmp_path):
    folder = chats.FOLDERS[name].write(tmp_path / "target")
    for talk, expected in GOLDEN[name].items():
        messages = [Message(*turn) for turn in chats.TALKS[talk]]
        if expected is None:
            with pytest.raises(UserError):
                open_chat(folder, chats.FOLDERS[name].style).encode(messages)
            continue
        chat = open_chat(folder, chats.FOLDERS[name].style)
        text, ids = expected
        assert chat.render(messages) == text
        assert chat.encode(messages).tolist() == ids


def test_tokens_beside_the_tokenizer_are_whole(tmp_path):
    """<|im_start|> is one token, wherever it is named, and not twelve."""
    for name in ("tokens only in tokenizer_config", "only in added_tokens.json"):
        folder = chats.FOLDERS[name].write(tmp_path / name)
        assert len(texts.load_tokenizer(folder).encode("<|im_start|>").ids) == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"added_tokens_decoder": {"5": {"lstrip": False}}},
        {"added_tokens_decoder": {"5": {"content": "a", "lstrip": "yes"}}},
        {"added_tokens_decoder": {"five": {"content": "a"}}},
        {"added_tokens_decoder": ["a"]},
        {"extra_special_tokens": 7},
        {"additional_special_tokens": [[7]]},
    ],
)
def test_added_tokens_that_are_none(folder, settings):
    with pytest.raises(UserError, match=r"tokenizer_config\.json .* an added token that is none"):
        open_chat(configure(folder, **settings))


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
    ids = speaker.encode(TALK).tolist()
    assert speaker.tokenizer.decode(ids, skip_special_tokens=False) == expected


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


# As FastChat's code for ADD_COLON_TWO puts it, with sep " " and sep2 "</s>".
V = texts.VICUNA_SYSTEM
VICUNA = {
    "USER: Q1 ASSISTANT:": [("user", "Q1")],
    "USER: Q1 ASSISTANT: A1</s>USER: Q2 ASSISTANT:": [
        ("user", "Q1"), ("assistant", "A1"), ("user", "Q2")
    ],
    "USER: Q1 ASSISTANT: A1</s>USER: Q2 ASSISTANT: A2</s>USER:  Q3  ASSISTANT:": [
        ("user", "Q1"), ("assistant", "A1"), ("user", "Q2"), ("assistant", "A2"), ("user", " Q3 ")
    ],
    "USER: Q1 ASSISTANT:USER: Q2 ASSISTANT:": [
        ("user", "Q1"), ("assistant", ""), ("user", "Q2")
    ],
}  # fmt: skip


@pytest.mark.parametrize("expected", VICUNA)
def test_vicuna_needs_no_template(folder, expected):
    messages = [Message(*turn) for turn in VICUNA[expected]]
    assert open_chat(folder, "vicuna").render(messages) == f"{V} {expected}"
    told = [Message("system", "Be brief."), *messages]
    assert open_chat(folder, "vicuna").render(told) == f"Be brief. {expected}"


def test_vicunas_turns_are_tokenised_with_ends(tmp_path):
    """</s> inside a conversation is one token, and <s> stands in front."""
    chat = open_chat(chats.Folder(tokenizer=chats.llama).write(tmp_path / "target"), "vicuna")
    found = chat.encode([Message("user", "i"), Message("assistant", "n"), Message("user", "i")])
    pieces = [chat.tokenizer.id_to_token(token) for token in found.tolist()]
    end = pieces.index("</s>")
    assert pieces[0] == "<s>" and pieces[end - 1 : end + 3] == ["n", "</s>", "▁U", "S"]


def test_a_conversation_with_a_system_message_gets_no_other(folder):
    configure(folder, chat_template=TEMPLATE)
    told = [Message("system", "Be brief."), TALK[0]]
    assert open_chat(folder, "llama3").render(told) == "<system>Be brief.</><user>one</><assistant>"


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


def write_stops(folder, template="", eos="</s>", **ids):
    """A folder whose files name ends of an answer; </s> is 262 and <|im_end|> 264."""
    made = chats.Folder(template, {"eos_token": eos}).write(folder)
    for name, value in ids.items():
        (made / f"{name}.json").write_text(json.dumps({"eos_token_id": value}))
    return made


CHATML, ZEPHYR = chats.TURNS, "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
STOPS = {
    "all the same": (CHATML, "<|im_end|>", {"config": 264}, (264,), []),
    "the template and the tokenizer say another": (
        CHATML, "<|im_end|>", {"config": 262}, (262, 264), ["<|im_end|>"]
    ),
    "the template alone says another": (
        CHATML, "</s>", {"config": 1, "generation_config": [262]}, (262, 264), ["the chat template"]
    ),
    "the tokenizer alone says another": (
        ZEPHYR, "<|im_end|>", {"generation_config": [262]}, (262, 264), ["tokenizer_config.json"]
    ),
    "both say others": (ZEPHYR, "<|im_end|>", {"config": 7}, (7, 264, 262), ["</s>", "im_end"]),
    "the model's files say none": (
        CHATML, "</s>", {"config": None}, (262, 264), ["config.json names no end"]
    ),
    "more in the model's files": (CHATML, "<|im_end|>", {"config": [262, 264]}, (262, 264), []),
    "a template without ends": ("{{ messages[-1].content }}", "</s>", {"config": 262}, (262,), []),
    "a template that takes no answers": (
        "{{ raise_exception('no') }}", "</s>", {"config": 262}, (262,), []
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STOPS)
def test_answers_end_where_any_file_says_so(name, tmp_path):
    template, eos, ids, stops, words = STOPS[name]
    folder = write_stops(tmp_path / "target", template, eos, **ids)
    assert texts.stop_tokens(folder) == stops
    doubts = inspect.tokenizer_doubts(folder, tmp_path, vocab_size=10**6)
    assert bool(doubts) == bool(words)
    assert all(any(word in doubt for doubt in doubts) for word in words), doubts


def test_ids_that_the_settings_say_otherwise_are_doubted(tmp_path):
    say = lambda first: {str(first + index): token for index, token in enumerate(chats.ALL)}
    for first, words in ((261, []), (270, ["'<s>' is 261, not 270", "3 more are"])):
        settings = {"added_tokens_decoder": say(first)}
        folder = chats.Folder(None, settings, tokenizer=chats.BARE).write(tmp_path / str(first))
        doubts = inspect.tokenizer_doubts(folder, tmp_path, vocab_size=10**6)
        found = [doubt for doubt in doubts if "are not of one model" in doubt]
        assert bool(found) == bool(words) and all(word in found[0] for word in words)


def test_of_several_templates_one_must_be_the_default(folder):
    named = [{"name": "rag", "template": "a"}, {"name": "tool_use", "template": "b"}]
    configure(folder, chat_template=named)
    with pytest.raises(UserError, match=r"\(rag, tool_use\) and none of them is the default; copy"):
        open_chat(folder)
    assert open_chat(folder, "plain").render(TALK[:1]) == "one "


def test_a_processors_template_is_the_last_choice(folder):
    (folder / "chat_template.json").write_text('\ufeff{"chat_template": "from it"}', "utf-8")
    assert open_chat(folder).render(TALK) == "from it"
    configure(folder, chat_template="its own")
    assert open_chat(folder).render(TALK) == "its own"


@pytest.mark.parametrize("older", [["tokenizer.model"], ["vocab.json", "merges.txt"]])
def test_older_tokenizers_need_transformers(tmp_path, monkeypatch, older):
    for name in older:
        (tmp_path / name).write_text("?")
    find_spec = importlib.util.find_spec
    hide = lambda name: None if name == "transformers" else find_spec(name)
    monkeypatch.setattr(importlib.util, "find_spec", hide)
    with pytest.raises(UserError) as caught:
        texts.load_tokenizer(tmp_path)
    said = str(caught.value)
    assert f"no tokenizer.json in {tmp_path}, only a {older[0]}: pip install 'ltd-jax[hf]'" in said
    assert "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)" in said


def test_older_tokenizers_are_converted_where_transformers_is(tmp_path, monkeypatch):
    """What the converter makes is used, and made once."""
    (tmp_path / "tokenizer.model").write_text("?")
    asked = []

    class AutoTokenizer:
        @staticmethod
        def from_pretrained(folder, **how):
            asked.append((folder, how))
            return types.SimpleNamespace(backend_tokenizer=chats.llama())

    fake = types.ModuleType("transformers")
    fake.AutoTokenizer = AutoTokenizer
    fake.__spec__ = importlib.util.spec_from_loader("transformers", loader=None)
    monkeypatch.setitem(texts.importlib.sys.modules, "transformers", fake)
    for _ in range(2):
        assert texts.load_tokenizer(tmp_path).encode("in").tokens == ["<s>", "▁", "in"]
    assert asked == [(str(tmp_path), {"local_files_only": True, "trust_remote_code": False})]


def test_a_sentencepiece_model_is_what_transformers_makes_of_it(tmp_path):
    """Runs where the extra hf is installed."""
    spm = pytest.importorskip("sentencepiece")
    transformers = pytest.importorskip("transformers")
    sentences = iter(["the cat sat on the mat", "naïve text, and more of the same"] * 50)
    model = tmp_path / "tokenizer"
    spm.SentencePieceTrainer.train(
        sentence_iterator=sentences, model_prefix=str(model), vocab_size=300, model_type="bpe",
        byte_fallback=True, minloglevel=2,
    )  # fmt: skip
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    settings = {"tokenizer_class": "LlamaTokenizer", "eos_token": "</s>", "bos_token": "<s>"}
    configure(tmp_path, **settings)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ("the cat", " naïve 漢  x</s>", ""):
        assert texts.load_tokenizer(tmp_path).encode(text).ids == theirs(text)["input_ids"]


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "tokenizer_config.json"])
def test_git_lfs_pointers_are_named(folder, name):
    (folder / "tokenizer.json").unlink()
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    if name == "tokenizer_config.json":
        chats.byte_level().save(str(folder / "tokenizer.json"))
    with pytest.raises(UserError, match=rf"{name} is a git-lfs pointer.*git lfs pull"):
        open_chat(folder)


def test_settings_with_a_byte_order_mark(folder):
    content = json.dumps({"chat_template": "{{ bos_token }}!", "bos_token": "<s>"})
    (folder / "tokenizer_config.json").write_text(content, "utf-8-sig")
    tokenizer = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(tokenizer, "utf-8-sig")
    assert open_chat(folder).render(TALK) == "<s>!"
    (folder / "chat_template.jinja").write_text("{{ eos_token }}?", "utf-8-sig")
    assert open_chat(folder).render(TALK) == "?"
