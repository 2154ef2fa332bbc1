"""Cuts the embedded question files from held-out documents of the corpus.

In: `Document`s of the validation and test splits. Out: ltd_jax/assets/prompts/<split>/<kind>.jsonl.
A prompt is a run of whole lines of one document. It starts where a definition, a paragraph or a
table row starts and takes the blank lines and the indentation before it along; it ends *before* a
line break. The tokenizer has one token for a line break and the indentation after it, so a prompt
cut between the two would be a text that the target has never seen.

    python -m experiments.pretrain.questions

writes the files (3 minutes on one core: each candidate is searched in the whole corpus).
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import tokenizers

from experiments.pretrain import corpus
from ltd_jax import text as texts
from ltd_jax.files import ASSETS

COUNTS = {"train": 32, "validation": 12, "test": 24}  # questions per kind
MIN_TOKENS = 48
MAX_TOKENS = 160
SPACING = 400  # characters between two prompts of a document: over 100 tokens of continuation
REMAINDER = 300  # characters of the document after a prompt
DEFINITION = re.compile(r"^(?: {4})?(?:@|def |class |async def )", re.MULTILINE)
STARTS = {
    "code": DEFINITION,
    "tests": DEFINITION,
    "docs": re.compile(r"(?<=\n\n)(?=[ \t]*\S)"),
    "tables": re.compile(r"^(?=.*\S)", re.MULTILINE),
}


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A run of whole lines of the document at `path`, from character `start` on."""

    path: str
    start: int
    text: str


def cut(text: str, start: int, tokenizer: tokenizers.Tokenizer, limit: int) -> str:
    """The longest run of whole lines from `start` with <= `limit` tokens, or "" if too short."""
    begin = len(text[:start].rstrip())
    chosen = ""
    for line_end in re.finditer(r"(?<=\S)[ \t]*(?=\n)", text[start : start + 10 * limit]):
        candidate = text[begin : start + line_end.end()]
        count = len(tokenizer.encode(candidate).ids)
        if count > limit:
            break
        chosen = candidate if count >= MIN_TOKENS else ""
    return chosen


def find_prompts(
    document: corpus.Document, tokenizer: tokenizers.Tokenizer, whole_corpus: str
) -> list[Prompt]:
    """Prompts of one document, SPACING apart, in an order drawn by hash.

    After each at least REMAINDER characters of the document are left to be continued. A prompt
    occurs once in the text of the whole corpus: then no other document, of whatever split, gives it
    away.
    """
    prompts: list[Prompt] = []
    free = 0
    starts = [0, *(match.start() for match in STARTS[document.kind].finditer(document.text))]
    for start in starts:
        if start < free:
            continue
        share = corpus.hash_of(f"{document.path}:{start}", "length:")
        limit = MIN_TOKENS + int(share * (MAX_TOKENS + 1 - MIN_TOKENS))
        text = cut(document.text, start, tokenizer, limit)
        if not text or start + len(text) + REMAINDER > len(document.text):
            continue
        if whole_corpus.count(text) == 1:
            prompts.append(Prompt(document.path, start, text))
            free = start + len(text) + SPACING
    return sorted(prompts, key=lambda one: corpus.hash_of(f"{one.path}:{one.start}", "order:"))


def deal(rows: Sequence[Sequence[Prompt]], count: int) -> list[Prompt]:
    """`count` prompts, spread over the rows (one per document) as evenly as they allow."""
    turns = range(max(map(len, rows), default=0))
    dealt = [row[turn] for turn in turns for row in rows if turn < len(row)]
    if len(dealt) < count:
        raise ValueError(f"The documents give {len(dealt)} prompts, but {count} are needed.")
    return dealt[:count]


def choose(
    documents: Sequence[corpus.Document],
    kind: str,
    tokenizer: tokenizers.Tokenizer,
    whole_corpus: str,
) -> dict[str, list[Prompt]]:
    """The prompts of one kind for each of the three question splits, from disjoint documents.

    Train and validation questions share the corpus split "validation": of its documents, longest
    first, every third goes to the validation questions.
    """
    rows = {
        split: [
            find_prompts(document, tokenizer, whole_corpus)
            for document in corpus.select_split(documents, split)
            if document.kind == kind
        ]
        for split in ("validation", "test")
    }
    held = sorted(rows["validation"], key=len, reverse=True)
    sources = {
        "train": [row for index, row in enumerate(held) if index % 3 != 1],
        "validation": held[1::3],
        "test": rows["test"],
    }
    return {split: deal(sources[split], count) for split, count in COUNTS.items()}


def format_lines(prompts: Sequence[Prompt]) -> Iterator[str]:
    """The question file's lines; the category is the dotted path of the document."""
    for number, prompt in enumerate(prompts):
        path = prompt.path.removeprefix("pydoc_data/topics/")
        category = re.sub(r"\.(py|txt|rst)$", "", path).replace("/", ".")
        yield json.dumps({"question_id": number, "category": category, "turns": [prompt.text]})


def write_questions(
    documents: Sequence[corpus.Document], tokenizer: tokenizers.Tokenizer, folder: Path
) -> None:
    """Writes <split>/<kind>.jsonl for all question splits and kinds."""
    whole_corpus = "\0".join(document.text for document in documents)
    for kind in corpus.KINDS:
        for split, prompts in choose(documents, kind, tokenizer, whole_corpus).items():
            (folder / split).mkdir(parents=True, exist_ok=True)
            lines = "".join(f"{line}\n" for line in format_lines(prompts))
            (folder / split / f"{kind}.jsonl").write_text(lines)


def main() -> None:
    """Writes the embedded question files."""
    tokenizer = texts.load_tokenizer(ASSETS / "target")
    write_questions(corpus.find_documents(), tokenizer, ASSETS / "prompts")


if __name__ == "__main__":
    main()
