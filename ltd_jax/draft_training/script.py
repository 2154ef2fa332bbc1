"""What is said around a target's turns: openings of conversations, and its chat template's words.

A target that is given its template up to the user's place asks a question by itself. First words of
many kinds, and system prompts where the template has a place for them, make the questions broad.
"""

from collections.abc import Iterator, Sequence

from ltd_jax.draft_training.talk import ANSWER, USER, Opening, Script
from ltd_jax.files import UserError
from ltd_jax.text import Chat, Message

MARK = "\ue000"  # stands for a turn in a rendered template; no template touches a private character
SYSTEMS = (
    "You are a helpful assistant.",
    "You answer briefly and precisely.",
    "You are a patient teacher who explains step by step.",
    "You are an experienced programmer who writes clean code.",
    "You are a friendly writer with a rich imagination.",
)
STEMS = (
    *("", "", "", ""),  # nothing: the target asks what it likes
    *("What is", "What are", "What does", "What would happen if", "Who", "When did", "Where"),
    *("Why do", "Why is", "How do I", "How does", "How many", "How much", "Which", "Is it", "Can"),
    *("Could you", "Do you know", "Tell me about", "Explain", "Explain to a child", "Describe"),
    *("Compare", "What is the difference between", "Summarize", "Summarize the following text:"),
    *("In one sentence,", "Give me three tips for", "List five", "Name a", "Suggest a title for"),
    *("Write a short story about", "Write a poem about", "Write a letter to", "Write an email"),
    *("Write a speech", "Write a review of", "Write a dialogue between", "Continue the story:"),
    *("Rewrite this sentence:", "Correct the mistakes:", "Translate into French:", "Paraphrase:"),
    *("Classify", "Extract the names from", "Turn this list into a table:", "Sort these words:"),
    *("Is the following statement true?", "Choose the right answer.", "Solve step by step:"),
    *("A shop sells", "A farmer has", "Two trains", "Anna has", "If a box holds", "There are 12"),
    *("Calculate", "Solve for x:", "What is the area of", "Convert 5", "The sum of two numbers"),
    *("Each week", "After spending", "A recipe needs", "Three friends share", "A bus leaves at"),
    *("Write a Python function that", "Write a Python class", "Complete this function:\n\ndef"),
    *("def", "Write a test for", "Explain this code:\n\n", "Fix the bug:\n\n", "Write an SQL"),
    *("Write a shell command", "Write a regular expression", "In JavaScript,", "How can I sort"),
    *("Plan a", "Recommend a", "Help me", "I need", "I want to", "I have a problem with", "My"),
    *("Imagine", "Act as", "You are a", "Pretend", "Let's play", "Debate whether", "Argue that"),
    *("Hello", "Hi, can you", "Thanks", "Good morning", "Please", "Should I", "What do you think"),
)  # fmt: skip
STARTS = (
    *("The", "In", "A", "It was", "There", "When", "Once", "Dear", "def", "import", "#", "1."),
    *("Chapter", "Question:", "Abstract", "Today", "For", "This", "She", "He said", "According to"),
)  # of texts, for targets without a chat template


def of_chat(chat: Chat, stop_tokens: Sequence[int]) -> Script:
    """The script of a target's own conversations, by its chat template; of texts where it has none.

    Args:
      stop_tokens: of the target's folder.

    Raises:
      UserError: the template does not let a user's words through, or nothing ends a turn.
    """
    if chat.style == "plain":
        begin = chat.tokenizer.encode("").ids  # what a text begins with
        ids = lambda text: chat.tokenizer.encode(text, add_special_tokens=False).ids
        openings = tuple(Opening((*begin, *ids(start)), ANSWER) for start in STARTS)
        return Script(openings, (), (), tuple(stop_tokens))
    one = [Message("user", MARK)]
    head, to_answer = _around(chat, one)
    _, _, to_user, _ = _around(chat, [*one, Message("assistant", MARK), *one])
    tail, after = _behind(chat, to_answer), _behind(chat, to_user)
    if not tail:
        raise UserError(f"Nothing in {chat.place} ends a user's turn; give `questions`.")
    after = after[1:] if after[:1] and after[0] in stop_tokens else after  # the answer ended itself
    begin = [] if chat.template else chat.tokenizer.encode("").ids
    found = [
        (*begin, *chat.tokenizer.encode(beginning + stem, add_special_tokens=False).ids)
        for beginning in (head, *_with_systems(chat))
        for stem in STEMS
    ]
    openings = tuple(Opening(tokens, USER) for tokens in dict.fromkeys(found) if tokens)
    return Script(openings, tail, after, tuple(stop_tokens), asked_ends=tail[:1])


def _behind(chat: Chat, text: str) -> tuple[int, ...]:
    """The tokens of a text that stands behind another one, where some tokenizers put no space."""
    ids = lambda text: chat.tokenizer.encode(text, add_special_tokens=False).ids
    ahead, both = ids("a"), ids(f"a{text}")
    return tuple(both[len(ahead) :] if both[: len(ahead)] == ahead else ids(text))


def of_prompts(prompts: Sequence[Sequence[int]], stop_tokens: Sequence[int]) -> Script:
    """The script of answers to prompts that are there, token ids as the target is asked them."""
    openings = tuple(Opening(tuple(int(token) for token in one), ANSWER) for one in prompts)
    return Script(openings, (), (), tuple(stop_tokens))


def _around(chat: Chat, messages: Sequence[Message]) -> list[str]:
    """What a template puts around turns that are all MARK: one part more than turns."""
    try:
        parts = chat.render(messages).split(MARK)
    except UserError:  # not every template takes answers
        parts = []
    if len(parts) != len(messages) + 1:
        raise UserError(
            f"{chat.place} does not put a conversation's turns one after another, so no target can "
            "have one with itself; give `questions`."
        )
    return parts


def _with_systems(chat: Chat) -> Iterator[str]:
    """What a template puts before a user's words where a system prompt is given."""
    for system in SYSTEMS:
        try:
            head, _ = chat.render([Message("system", system), Message("user", MARK)]).split(MARK)
        except ValueError:  # it knows no system prompts
            return
        if system in head:
            yield head
