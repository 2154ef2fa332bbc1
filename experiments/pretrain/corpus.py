"""The corpus of the embedded pair: the standard library of the running interpreter.

In: the interpreter's own files. Out: `Document`s of four kinds, split by a hash of their path, a
byte-level BPE tokenizer and uint16 token streams. The standard library is on every machine that
runs this package, its licence (PSF) allows it, and its kinds differ in how predictable they are,
which is what an adaptive draft length lives on.

    python -m experiments.pretrain.corpus

writes the tokenizer into the embedded target's folder, and the streams to runs/corpus.
"""

import dataclasses
import hashlib
import json
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path
from pydoc_data import topics

import numpy as np
import tokenizers

from ltd_jax.draft_training.pack import Mixture
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


def find_documents(root: Path | None = None) -> list[Document]:
    """All documents of the standard library under `root`, sorted by path.

    Files that are not UTF-8, empty ones and the build's own settings (`_sysconfigdata*`) are no
    documents.
    """
    root = Path(root or sysconfig.get_paths()["stdlib"])
    texts = {f"pydoc_data/topics/{topic}": text for topic, text in distinct_topics().items()}
    for file in root.rglob("*.*"):
        path = file.relative_to(root)
        if is_document(path):
            texts[path.as_posix()] = read_text(file)
    return [make_document(path, text) for path, text in sorted(texts.items()) if text.strip()]


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


def make_document(path: str, text: str) -> Document:
    """The document of a relative path, its text cut after MAX_CHARACTERS."""
    kind = kind_of(path)
    return Document(path, kind, split_of(path, kind), text[:MAX_CHARACTERS])


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


def sample_texts(documents: Iterable[Document], characters: int = SAMPLE_CHARACTERS) -> list[str]:
    """Train texts in stream order until `characters` are reached, for the tokenizer."""
    texts, total = [], 0
    for document in select_split(documents, "train"):
        if total >= characters:
            break
        texts.append(document.text)
        total += len(document.text)
    return texts


def train_tokenizer(texts: Sequence[str], vocab_size: int = VOCAB_SIZE) -> tokenizers.Tokenizer:
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
    """All tokens of a split as one uint16 array; END_OF_TEXT_ID follows each document."""
    texts = [document.text for document in select_split(documents, split)]
    rows = [[*encoding.ids, END_OF_TEXT_ID] for encoding in tokenizer.encode_batch(texts)]
    return np.concatenate([np.asarray(row, np.uint16) for row in rows] or [np.zeros(0, np.uint16)])


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
    for name, content in (
        ("tokenizer_config.json", settings),
        ("generation_config.json", {"eos_token_id": END_OF_TEXT_ID}),
    ):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def write_streams(
    documents: Sequence[Document], tokenizer: tokenizers.Tokenizer, folder: Path
) -> dict[str, int]:
    """Writes <split>.npy and validation_<kind>.npy; returns the token count of each stream."""
    folder.mkdir(parents=True, exist_ok=True)
    streams = {split: token_stream(documents, tokenizer, split) for split in SPLITS}
    for kind, stream in zip(KINDS, kind_streams(documents, tokenizer, "validation"), strict=True):
        streams[f"validation_{kind}"] = stream
    for name, stream in streams.items():
        np.save(folder / f"{name}.npy", stream)
    return {name: len(stream) for name, stream in streams.items()}


def main() -> None:
    """Writes the embedded target's tokenizer and runs/corpus, and prints the token counts."""
    documents = find_documents()
    tokenizer = train_tokenizer(sample_texts(documents))
    write_tokenizer(tokenizer, ASSETS / "target")
    for name, count in write_streams(documents, tokenizer, Path("runs/corpus")).items():
        print(f"{name} {count}")


if __name__ == "__main__":
    main()
