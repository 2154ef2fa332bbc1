"""The corpus of the embedded pair: the standard library of the running interpreter.

In: the interpreter's own files. Out: `Document`s of four kinds, split by a hash of their path, a
byte-level BPE tokenizer and token streams. The standard library is on every machine that
runs this package, its licence (PSF) allows it, and its kinds differ in how predictable they are,
which is what an adaptive draft length lives on.

    python -m experiments.pretrain.corpus

writes the tokenizer into the embedded target's folder, and prints the token count of every split.
"""

import dataclasses
import hashlib
import itertools
import json
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from pydoc_data import topics

import numpy as np
import tokenizers

from ltd_jax.draft_training.pack import Mixture, token_dtype
from ltd_jax.files import ASSETS

KINDS = ("code", "tests", "docs", "tables")
WEIGHTS = (0.40, 0.34, 0.13, 0.13)  # how often a training window comes from each kind
SPLITS = ("train", "validation", "test")
# Shares of train and validation; the rest is test. Topics and tables are few, and held-out ones are
# needed for 68 prompts per kind.
SHARES = {
    "code": (0.94, 0.03),
    "tests": (0.94, 0.03),
    "docs": (0.74, 0.13),
    "tables": (0.78, 0.13),
}
END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 0
VOCAB_SIZE = 2048
SAMPLE_CHARACTERS = 8_000_000  # text that the tokenizer is trained on
MAX_CHARACTERS = 200_000  # of one document

TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})
SKIPPED_FOLDERS = frozenset({"site-packages", "__pycache__", "pydoc_data"})
PROSE_SUFFIXES = frozenset({".txt", ".rst"})
GRAMMARS = frozenset({"lib2to3/Grammar.txt", "lib2to3/PatternGrammar.txt"})
TABLE_MODULES = frozenset(
    {
        "html/entities.py",
        "keyword.py",
        "lib2to3/pgen2/token.py",
        "opcode.py",
        "re/_casefix.py",
        "re/_constants.py",
        "sre_constants.py",
        "stringprep.py",
        "tkinter/constants.py",
        "token.py",
    }
)
# A newline takes its indentation with it; a word takes one leading space or sign.
PIECES = (
    r"\n+[ \t]*"
    r"|[^\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+"
    r"|[^\S\n]+(?!\S)"
    r"|[^\S\n]+"
)


@dataclasses.dataclass(frozen=True)
class Document:
    """One text of the corpus; `path` is posix and relative to the standard library."""

    path: str
    kind: str
    split: str
    text: str


def find_documents() -> list[Document]:
    """All documents of the standard library, sorted by path, each cut after MAX_CHARACTERS.

    Files that are not UTF-8, empty ones and the build's own settings (`_sysconfigdata*`) are no
    documents.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    texts = {f"pydoc_data/topics/{topic}": text for topic, text in distinct_topics().items()}
    for file in root.rglob("*.*"):
        path = file.relative_to(root)
        if is_document(path):
            texts[path.as_posix()] = read_text(file)
    documents = []
    for name, text in sorted(texts.items()):
        if text.strip():
            kind = kind_of(name)
            documents.append(Document(name, kind, split_of(name, kind), text[:MAX_CHARACTERS]))
    return documents


def is_document(path: Path) -> bool:
    """Whether a relative path is Python text, or prose outside of the tests."""
    if not SKIPPED_FOLDERS.isdisjoint(path.parts) or path.name.startswith("_sysconfigdata"):
        return False
    if path.suffix in PROSE_SUFFIXES:
        return TEST_FOLDERS.isdisjoint(path.parts) and path.as_posix() not in GRAMMARS
    return path.suffix == ".py"


def distinct_topics() -> dict[str, str]:
    """The help topics that are no excerpt of a larger one.

    `if`, for example, is a section of `compound`: on two sides of the split it would be a leak.
    """
    chosen: dict[str, str] = {}
    seen: set[str] = set()
    for topic, text in sorted(topics.topics.items(), key=lambda item: (-len(item[1]), item[0])):
        paragraphs = text.split("\n\n")
        known = sum(len(paragraph) for paragraph in paragraphs if paragraph in seen)
        if known < 0.3 * len(text):
            chosen[topic] = text
        seen.update(paragraphs)
    return chosen


def read_text(file: Path) -> str:
    """The file's text with unix line ends, or "" where it is not UTF-8."""
    try:
        return file.read_bytes().decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return ""


def kind_of(path: str) -> str:
    """One of KINDS, from the relative path alone."""
    folders = path.split("/")[:-1]
    if folders[:1] == ["pydoc_data"] or path.endswith(tuple(PROSE_SUFFIXES)):
        return "docs"
    if not TEST_FOLDERS.isdisjoint(folders):
        return "tests"
    if folders[:1] == ["encodings"] or path in TABLE_MODULES:
        return "tables"
    return "code"


def hash_of(path: str, salt: str) -> float:
    """A number in [0, 1) that depends on the path and the salt only."""
    digest = hashlib.sha256(f"{salt}{path}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def split_of(path: str, kind: str) -> str:
    """One of SPLITS by the path's hash, in the shares of SHARES."""
    train, validation = SHARES[kind]
    share = hash_of(path, "")
    if share < train:
        return "train"
    return "validation" if share < train + validation else "test"


def select_split(documents: Iterable[Document], split: str) -> list[Document]:
    """The documents of a split, kinds mixed, in an order drawn by the path's hash."""
    chosen = [document for document in documents if document.split == split]
    return sorted(chosen, key=lambda document: hash_of(document.path, "order:"))


def sample_texts(documents: Iterable[Document]) -> Iterator[str]:
    """Train texts in stream order until SAMPLE_CHARACTERS are reached, for the tokenizer."""
    total = 0
    for document in select_split(documents, "train"):
        if total < SAMPLE_CHARACTERS:
            yield document.text
        total += len(document.text)


def train_tokenizer(texts: Iterable[str], vocab_size: int = VOCAB_SIZE) -> tokenizers.Tokenizer:
    """A byte-level BPE of `vocab_size` entries that gives back any text exactly.

    Entry 0 is END_OF_TEXT, the end of a document; all 256 bytes are entries.
    """
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(PIECES), behavior="isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def token_stream(
    documents: Iterable[Document], tokenizer: tokenizers.Tokenizer, split: str
) -> np.ndarray:
    """All tokens of a split as one array; END_OF_TEXT_ID follows each document."""
    texts = [document.text for document in select_split(documents, split)]
    rows = [[*encoding.ids, END_OF_TEXT_ID] for encoding in tokenizer.encode_batch(texts)]
    dtype = token_dtype(tokenizer.get_vocab_size())
    return np.fromiter(itertools.chain.from_iterable(rows), dtype)


def kind_streams(
    documents: Sequence[Document], tokenizer: tokenizers.Tokenizer, split: str
) -> list[np.ndarray]:
    """The token stream of every kind, in the order of KINDS."""
    by_kind = [[document for document in documents if document.kind == kind] for kind in KINDS]
    return [token_stream(chosen, tokenizer, split) for chosen in by_kind]


def make_mixture(streams: Sequence[np.ndarray]) -> Mixture:
    """Token streams of all kinds, mixed by WEIGHTS."""
    return Mixture(tuple(streams), WEIGHTS)


def write_tokenizer(tokenizer: tokenizers.Tokenizer, folder: Path) -> None:
    """Writes tokenizer.json and the two small Hugging Face files that name the end of a text."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
    }
    ends = {"eos_token_id": END_OF_TEXT_ID}
    for name, content in (("tokenizer_config", settings), ("generation_config", ends)):
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    """Writes the embedded target's tokenizer and prints the token counts."""
    documents = find_documents()
    tokenizer = train_tokenizer(sample_texts(documents))
    write_tokenizer(tokenizer, ASSETS / "target")
    for split in SPLITS:
        print(f"{split} {len(token_stream(documents, tokenizer, split))}")


if __name__ == "__main__":
    main()
