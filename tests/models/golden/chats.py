"""Folders of tokenizers and chat templates: what files may hold, and what templates may use.

Shared by the script that makes the golden file with transformers and by the tests that read it.
The templates are written for this purpose, one for every way in which the known families put
conversations and for everything of jinja2 that templates use.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

GOLDEN = Path(__file__).parent / "chats.json"
TALKS = {
    "question": [("user", " Tab\t<b>&amp; 'é' ")],
    "told": [("system", "Be brief.\n"), ("user", "2+2?")],
    "talk": [
        ("user", "Hi <|im_end|>"),
        ("assistant", "<think>\nhm\n</think>\n\nHello 🎈"),
        ("user", "漢字</s>?"),
    ],
}
CHATML = ("<|im_start|>", "<|im_end|>")


def byte_level(*special: str) -> tokenizers.Tokenizer:
    """One token for every byte, a few merges, then special tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = ["he", "in", "us", "er", "st"]
    vocabulary = {piece: index for index, piece in enumerate([*letters, *merged])}
    merges = [(piece[0], piece[1]) for piece in merged]
    found = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    found.add_special_tokens(list(special))
    return found


def llama() -> tokenizers.Tokenizer:
    """As Llama 1 and 2 have it: pieces with a bar for the space, bytes for what is not there."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    pieces += [chr(code) for code in range(33, 127)] + ["in", "▁U", "▁A", "us", "é"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = [("i", "n"), ("▁", "U"), ("▁", "A"), ("u", "s")]
    model = models.BPE(
        vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    found = tokenizers.Tokenizer(model)
    found.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    found.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    marks = {"normalized": False, "special": True}
    found.add_special_tokens([AddedToken(piece, **marks) for piece in pieces[:3]])
    found.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return found


@dataclasses.dataclass(frozen=True)
class Folder:
    """A tokenizer's folder."""

    template: str | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    files: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # others: text, or JSON
    tokenizer: Callable[[], tokenizers.Tokenizer] = lambda: byte_level("<s>", "</s>", *CHATML)
    style: str = "template"

    def write(self, folder: Path) -> Path:
        """Writes it, and returns the folder."""
        folder.mkdir(parents=True)
        self.tokenizer().save(str(folder / "tokenizer.json"))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIAL, **self.settings}
        if self.template is not None:
            settings["chat_template"] = self.template
        for name, content in {"tokenizer_config.json": settings, **self.files}.items():
            (folder / name).parent.mkdir(exist_ok=True)
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / name).write_bytes(text.encode())
        return folder


SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
TURNS = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BARE = byte_level  # no special tokens in tokenizer.json
MARKS = dict.fromkeys(("lstrip", "rstrip", "normalized", "single_word"), False)


def named(text: str, **marks: bool) -> dict[str, Any]:
    """An added token as tokenizer_config.json and special_tokens_map.json have it."""
    return {"content": text, **MARKS, **marks}


def decoder(*tokens: dict[str, Any]) -> dict[str, Any]:
    """An added_tokens_decoder behind the pieces of `byte_level`."""
    return {str(261 + index): {"special": True, **token} for index, token in enumerate(tokens)}


ALL = tuple(named(text) for text in ("<s>", "</s>", *CHATML))
IN_FILES = {
    "ChatML": Folder(TURNS),
    "tokens only in tokenizer_config": Folder(
        TURNS, {"added_tokens_decoder": decoder(*ALL)}, tokenizer=BARE
    ),
    "some in both": Folder(
        TURNS,
        {"added_tokens_decoder": decoder(*ALL)},
        tokenizer=lambda: byte_level("<s>", "</s>"),
    ),
    "in an order of their own": Folder(
        TURNS,
        {"added_tokens_decoder": {"264": ALL[2], "262": ALL[3], "261": ALL[1], "263": ALL[0]}},
        tokenizer=BARE,
    ),
    "no special ones": Folder(
        TURNS,
        {"added_tokens_decoder": decoder(*({**token, "special": False} for token in ALL))},
        tokenizer=BARE,
    ),
    "with other marks than in tokenizer.json": Folder(
        TURNS,
        {
            "added_tokens_decoder": decoder(
                *ALL[:2], named("<|im_start|>", lstrip=True), named("<|im_end|>", rstrip=True)
            )
        },
    ),
    "only in added_tokens.json": Folder(
        TURNS,
        files={"added_tokens.json": {"<s>": 261, "<|im_end|>": 263, "<|im_start|>": 262}},
        tokenizer=BARE,
    ),
    "added_tokens.json beside added_tokens_decoder": Folder(
        TURNS,
        {"added_tokens_decoder": decoder(*ALL[:2])},
        files={"added_tokens.json": {"<|im_end|>": 263, "<|im_start|>": 264}},
        tokenizer=BARE,
    ),
    "only in special_tokens_map.json": Folder(
        "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|" + TURNS,
        files={
            "special_tokens_map.json": {
                "bos_token": named("<|im_start|>"),
                "eos_token": named("<|im_end|>", rstrip=True),
                "pad_token": "<pad>",
            }
        },
        tokenizer=BARE,
    ),
    "special_tokens_map.json beside added_tokens_decoder": Folder(
        "{{ bos_token }}|{{ eos_token }}|" + TURNS,
        {"added_tokens_decoder": decoder(*ALL)},
        files={"special_tokens_map.json": {"bos_token": "<|im_start|>", "eos_token": "<x>"}},
        tokenizer=BARE,
    ),
    "in a list of special_tokens_map.json": Folder(
        TURNS,
        files={"special_tokens_map.json": {"additional_special_tokens": list(CHATML)}},
        tokenizer=BARE,
    ),
    "special, by a list of special_tokens_map.json": Folder(
        TURNS,
        files={
            "added_tokens.json": {"<|im_end|>": 261, "<|im_start|>": 262},
            "special_tokens_map.json": {"additional_special_tokens": list(CHATML)},
        },
        tokenizer=BARE,
    ),
    "in both lists of extra ones": Folder(
        TURNS,
        {"extra_special_tokens": ["<x>", "<|im_end|>"]},
        files={"special_tokens_map.json": {"extra_special_tokens": ["<|im_start|>"]}},
        tokenizer=BARE,
    ),
    "in a list of more": Folder(TURNS, {"additional_special_tokens": list(CHATML)}, tokenizer=BARE),
    "in a list of extra ones": Folder(
        TURNS, {"extra_special_tokens": [*CHATML, "<x>"]}, tokenizer=BARE
    ),
    "by names of their own": Folder(
        "{{ turn_token }}{{ image_token }}|" + TURNS,
        {"turn_token": "<|im_start|>", "image_token": "<img>", "add_bos_token": True},
        tokenizer=BARE,
    ),
    "in an object of extra ones": Folder(
        "{{ turn_token }}{{ image_token }}|" + TURNS,
        {"extra_special_tokens": {"image_token": "<img>", "turn_token": "<|im_start|>"}},
        tokenizer=BARE,
    ),
    "special tokens as objects": Folder(
        "{{ bos_token }}{{ eos_token }}|" + TURNS,
        {
            "bos_token": {"__type": "AddedToken", **named("<|im_start|>", lstrip=True)},
            "eos_token": {"__type": "AddedToken", **named("<|im_end|>")},
        },
        tokenizer=BARE,
    ),
    "special tokens that are none": Folder(
        "{{ bos_token }}|{{ eos_token }}|{{ unk_token }}|" + TURNS,
        {"bos_token": None, "eos_token": None, "unk_token": "<unk>"},
    ),
    "special tokens are text": Folder(TURNS, {"split_special_tokens": True}),
    "a file of its own": Folder("no", files={"chat_template.jinja": TURNS}),
    "a file with Windows' line ends": Folder(
        files={"chat_template.jinja": TURNS.replace("\n", "\r\n") + "\r\n"}
    ),
    "several in a list": Folder(
        settings={
            "chat_template": [
                {"name": "tool_use", "template": "no"},
                {"name": "default", "template": TURNS},
            ]
        }
    ),
    "a folder of more": Folder(
        files={
            "chat_template.jinja": TURNS,
            "additional_chat_templates/rag.jinja": "no",
            "additional_chat_templates/tool_use.jinja": "no",
        }
    ),
    "a folder with the default": Folder(
        "no", files={"additional_chat_templates/default.jinja": TURNS}
    ),
    "several without a default": Folder(TURNS, files={"additional_chat_templates/rag.jinja": "no"}),
    "plain": Folder(style="plain"),
    "plain, with a start": Folder(tokenizer=llama, style="plain"),
    "plain, told to add a start": Folder(settings={"add_bos_token": True}, style="plain"),
    "plain, with pieces": Folder(
        settings={"add_bos_token": False, "pad_token": "</s>"}, tokenizer=llama, style="plain"
    ),
}
AS_FAMILIES = {
    "told by default": """\
{%- if messages[0]['role'] != 'system' -%}
<|im_start|>system
You are helpful.<|im_end|>
{% endif %}
{% for message in messages %}
    {{- '<|im_start|>' ~ message['role'] ~ '\\n' ~ message['content'] ~ '<|im_end|>' ~ '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    "instructions in brackets": """\
{% if messages[0].role == 'system' %}
{% set told = '<<SYS>>\\n' + messages[0].content + '\\n<</SYS>>\\n\\n' %}
{% set rest = messages[1:] %}
{% else %}{% set told = '' %}{% set rest = messages %}{% endif %}
{% for message in rest %}
{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Roles must take turns.') }}
{% endif %}
{% if message.role == 'user' %}
{{ bos_token + '[INST] ' + (told if loop.first else '') + message.content.strip() + ' [/INST]' }}
{%- else %}{{ ' ' + message.content.strip() + ' ' + eos_token }}{% endif %}
{% endfor %}""",
    "headers": """\
{% for message in messages %}
{% set content = '<|' + message['role'] + '|>\\n\\n' + message['content'] | trim + eos_token %}
{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}
{{ content }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<|assistant|>\\n\\n' }}{% endif %}""",
    "headers with a date and tools": """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set told = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set told = "" %}
{%- endif %}
{{- "<|system|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: tools\\n" }}{%- endif %}
{{- "Today: " + date_string + "\\n\\n" + told + "</s>" }}
{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|' + message.role + '|>\\n\\n' + message.content | trim + '</s>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>\\n\\n' }}{%- endif %}
""",
    "no system allowed": """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}{{ raise_exception('No system.') }}{% endif %}
{% for message in messages %}
{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{ '<turn>' + role + '\\n' + message['content'] | trim + '</turn>\\n' }}{% endfor %}
{% if add_generation_prompt %}{{ '<turn>model\\n' }}{% endif %}""",
    "thoughts are forgotten": """\
{% set ns = namespace(is_first=false, told='', last=none) %}
{%- for message in messages %}{%- if message['role'] == 'system' %}
{%- set ns.told = message['content'] %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.told }}
{%- for message in messages %}
{%- if message['role'] == 'user' %}{%- set ns.last = loop.index0 %}{{ '<U>' + message['content'] }}
{%- endif %}
{%- if message['role'] == 'assistant' and message['content'] is not none %}
{%- set content = message['content'] %}
{%- if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}
{{- '<A>' + content + eos_token }}
{%- endif %}
{%- endfor -%}
{% if add_generation_prompt and ns.last is not none %}{{ '<A><think>\\n' }}{% endif %}""",
    "thinking is a switch": """\
{%- set ns = namespace(searching=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string and not(
        message.content.startswith('<tool>') and message.content.endswith('</tool>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "assistant" %}
        {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
        {%- set thought = message.content.split('</think>')[0].rstrip('\\n') %}
        {%- set thought = thought.split('<think>')[-1].lstrip('\\n') %}
        {%- if loop.index0 > ns.last and (loop.last or (not loop.last and thought)) %}
            {{- '<|im_start|>assistant\\n<think>\\n' + thought + '\\n</think>\\n\\n' + content }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}""",
    "marked for training": """\
{% for message in messages %}
{%- if message.role == 'assistant' %}
<|im_start|>assistant
{% generation %}{{ message.content }}<|im_end|>{% endgeneration %}

{% else %}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endif %}
{% endfor %}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif %}""",
    "marked, with a scope of its own": """\
{%- set said = 'outside' -%}
{%- for message in messages -%}
{%- generation -%}{%- set said = message.role -%}{{ said }}:{{ message.content }}
{%- endgeneration -%}
{{ said }}
{%- endfor -%}
{% if add_generation_prompt %}{% generation %}>{% endgeneration %}{% endif %}""",
    "content in parts": """\
{% for message in messages %}{{ message.role }}:
{%- if message.content is string %}{{ message.content }}
{%- elif message.content is iterable and message.content is not mapping %}
{% for part in message.content %}{{ part.text }}{% endfor %}
{% endif %}
{{ eos_token }}
{%- endfor %}{{ 'assistant:' if add_generation_prompt else '' }}""",
    "reasoning and calls are not there": """\
{% for message in messages %}
{%- if message.reasoning_content is defined and message.reasoning_content is not none -%}
<r>{{ message.reasoning_content }}</r>
{%- endif -%}
{%- if message.tool_calls -%}<c>{{ message.tool_calls | tojson }}</c>{%- endif -%}
{{ message.name | default(message.role, true) }}={{ message.get('content', '?') }};
{%- endfor %}{% if tools %}tools{% endif %}{% if documents %}documents{% endif %}""",
}
OF_JINJA = {
    "JSON": "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}",
    "JSON in ASCII": "{{ messages | tojson(ensure_ascii=True) }}{{ messages | tojson(true) }}",
    "JSON without spaces": "{{ messages | tojson(separators=(',', ':'), sort_keys=True) }}",
    "JSON, all of it": (
        "{{ {'b': none, 'a': [1, 1.5, true], 'é': '<&>'}"
        " | tojson(ensure_ascii=False, indent=4, separators=(' ,', ': '), sort_keys=true) }}"
    ),
    "what is passed": (
        "{{ tools is defined }} {{ tools is none }} {{ documents is defined }} "
        "{{ documents is none }} {{ add_generation_prompt }} {{ enable_thinking is defined }} "
        "{{ messages is sequence }} {{ tools }} {{ nothing }}|{{ pad_token }}|{{ bos_token }}"
    ),
    "loops are left": (
        "{% for message in messages %}{% if message.role == 'system' %}{% continue %}{% endif %}"
        "{{ loop.index }}{{ message.role }}{% if loop.index > 1 %}{% break %}{% endif %}"
        "{% endfor %}"
    ),
    "what loops know": (
        "{% for message in messages %}{{ loop.first }}{{ loop.last }}{{ loop.length }}"
        "{{ loop.revindex0 }}{{ loop.previtem.role if not loop.first }}"
        "{{ loop.nextitem is defined }}"
        "{{ loop.changed(message.role) }}{{ loop.cycle('a', 'b') }} {% else %}none{% endfor %}"
    ),
    "macros": (
        "{% macro turn(role, content, end=eos_token) -%}\n    <{{ role }}>{{ content | trim }}"
        "{{ end }}\n{%- endmacro %}\n{% for message in messages %}"
        "{{ turn(message.role, message.content) }}{{ turn(content='x', role='y', end='') }}"
        "{% endfor %}"
    ),
    "calls with a body": (
        "{% macro box(title) %}[{{ title }}:{{ caller() }}]{% endmacro %}"
        "{% call box('a') %}{{ messages[-1].content }}{% endcall %}"
    ),
    "filters on lists": (
        "{{ messages | map(attribute='role') | join(',') }} "
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }} "
        "{{ messages | rejectattr('role', 'eq', 'user') | map(attribute='content') | first }} "
        "{% for role, group in messages | groupby('role') %}{{ role }}{{ group | count }}"
        "{% endfor %} {{ (messages | last).role | upper }} {{ [3, 1, 2] | sort | sum }}"
    ),
    "filters on text": (
        "{% set text = messages[0].content %}{{ text | trim | capitalize }}|"
        "{{ text | replace('a', '4') }}|{{ text | upper | lower }}|{{ 'a b' | title }}|"
        "{{ text | length }}|{{ 'x\\ny' | indent(2) }}|{{ text | truncate(5) }}|{{ text | e }}|"
        "{{ '%s-%d' | format('a', 3) }}|{{ 3.7 | round | int }}|"
        "{{ 'a' | default('b') }}{{ c | default('d') }}|{{ text | wordcount }}|{{ text[:3] }}"
    ),
    "methods of text": (
        "{% set text = messages[-1].content %}{{ text.strip().split(' ') }}"
        "{{ text.startswith('H') }}{{ text.lstrip() }}{{ text.find('i') }}"
        "{{ 'x{}y'.format(1) }}{{ '%s!' % text }}"
        "{{ text.encode is defined }}{{ ', '.join(['a', 'b']) }}{{ text ~ 1 ~ none }}"
    ),
    "tests": (
        "{% for message in messages %}{{ message is mapping }}{{ message.content is string }}"
        "{{ message.x is defined }}{{ message.x is none }}{{ 'role' in message }}"
        "{{ loop.index is odd }}{{ message.role is in ['user'] }}"
        "{{ 4 is divisibleby 2 }}{% endfor %}"
    ),
    "names in blocks": (
        "{% set text %}\n  {{ messages[0].content }}\n{% endset %}{{ text | trim }}"
        "{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}"
        "{% filter upper %}x{{ bos_token }}{% endfilter %}"
        "{% set a, b = 'p', 'q' %}{{ b ~ a }}"
    ),
    "namespaces": (
        "{% set ns = namespace(n=0, names=[]) %}{% for message in messages %}"
        "{% set ns.n = ns.n + message.content | length %}"
        "{% set ns.names = ns.names + [message.role] %}{% endfor %}{{ ns.n }}{{ ns.names }}"
        "{% set n = dict(a=1, **{'b': 2}) %}{{ n.items() | list }}"
    ),
    "white space": (
        "  {% if true %}\n a\n  {% endif %}\n  {%- if true +%}\n b {% endif -%}\n\n c"
        "{#- a remark -#}\n  d {# another #}\n\t{%+ if true %} e{% endif %}\n"
        "{{ messages[0].role }}\n\n"
    ),
    "raw text": (
        "{% raw %}{{ not.this }} {% for %}{% endraw %}{{ '{{' }}é🎈{{ messages[-1].content }}"
    ),
    "numbers and order": (
        "{% for i in range(2, 8, 3) %}{{ i }}{% endfor %}{{ 7 // 2 }}{{ 7 % 4 }}{{ 2 ** 5 }}"
        "{{ 7 / 2 }}{{ not true or 1 < 2 <= 2 }}{{ [1, 2][-1] }}{{ (1, 'a') }}{{ {'k': none} }}"
        "{{ true }}{{ 1e3 }}"
    ),
    "helpers": (
        "{% set c = cycler('x', 'y') %}{% set j = joiner(', ') %}"
        "{% for message in messages %}{{ j() }}{{ c.next() }}{{ message.role }}{% endfor %}"
    ),
    "recursive loops": (
        "{% for item in [[1, [2]], [3]] recursive %}{% if item is iterable %}({{ loop(item) }})"
        "{% else %}{{ item }}{% endif %}{% endfor %}"
    ),
    "the date": "{{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%A, %B %d') }}",
    "no such tag": "{% do messages.append(1) %}",
    "no other files": "{% include 'config.json' %}",
    "no changes": "{{ messages.pop() }}{{ messages }}",
    "a complaint": "{{ raise_exception('Only one turn.') }}",
    "what is not there": "{{ messages[0].nothing.at.all }}",
}
FOLDERS: dict[str, Folder] = (
    IN_FILES
    | {name: Folder(template) for name, template in (AS_FAMILIES | OF_JINJA).items()}
    | {
        "Llama's pieces": Folder(AS_FAMILIES["instructions in brackets"], tokenizer=llama),
        "thinking is off": Folder(AS_FAMILIES["thinking is a switch"], style="qwen3"),
        "thinking is on": Folder(AS_FAMILIES["thinking is a switch"], style="qwen3-thinking"),
    }
)
