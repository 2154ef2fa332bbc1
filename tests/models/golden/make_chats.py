"""Makes chats.json from transformers (which is not needed to run the tests).

python -m tests.models.golden.make_chats

For every folder of chats.py and every talk: what transformers makes of it, its text and token ids;
null where it raises an error. The day of a template is the one that the library always gives.
"""

import datetime
import json
import tempfile
import types
from pathlib import Path
from typing import Any

import transformers
from transformers.utils import chat_template_utils

from ltd_jax import text as texts
from tests.models.golden import chats


def golden(tokenizer: Any, style: str, talk: list[tuple[str, str]]) -> list[Any] | None:
    """Text and ids of a talk."""
    if style == "plain":
        text = "\n\n".join(content for _, content in talk)
        return [text, tokenizer(text)["input_ids"]]
    messages = [{"role": role, "content": content} for role, content in talk]
    arguments = {"add_generation_prompt": True, **texts.SWITCHES.get(style, {})}
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, **arguments)
        ids = tokenizer.apply_chat_template(messages, return_dict=False, **arguments)
    except Exception as error:  # as templates fail
        print(f"  {type(error).__name__}: {error}")
        return None
    return [text, ids]


def main() -> None:
    today = datetime.datetime.combine(texts.TODAY, datetime.time())
    chat_template_utils.datetime = types.SimpleNamespace(now=lambda: today)
    made = {}
    with tempfile.TemporaryDirectory() as root:
        for number, (name, folder) in enumerate(chats.FOLDERS.items()):
            print(name)
            path = folder.write(Path(root) / str(number))
            tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(path)
            made[name] = {
                talk: golden(tokenizer, folder.style, chats.TALKS[talk]) for talk in chats.TALKS
            }
    rows = [f"{json.dumps(name)}: {json.dumps(made[name])}" for name in made]
    head = f'{{"transformers": {json.dumps(transformers.__version__)}, "folders": {{'
    content = "\n".join([head, ",\n".join(rows), "}}", ""])
    chats.GOLDEN.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
