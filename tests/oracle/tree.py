"""EAGLE's draft tree as its authors build it: one flat candidate list, parents by offset sums.

`Reader`s come from oracle.draft or oracle.griffin. Candidates are numbered as they are made: W
children of the root, then W * W per round; groups of W share a parent; P holds each group's parent
as a 1-based number, 0 for the root.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass
class Tree:
    """All candidates of a cycle."""

    score: list  # cumulative log-probabilities
    token: list  # target ids
    parent: list  # per group of W candidates: 1-based candidate number, 0 = the root


@dataclasses.dataclass
class Chosen:
    """The root (node 0) and the nodes that are verified."""

    token: list
    parent: list  # node numbers; the root's is 0
    mask: np.ndarray  # [T, T], ancestors and self
    depth: list


def top(values, count):
    """Indices of the `count` largest, lower ones first among equals."""
    return sorted(range(len(values)), key=lambda index: (-values[index], index))[:count]


def offset(round_, width):
    """What turns a beam index into the number of a candidate: 1, 1 + W, 1 + W + W * W, ..."""
    return 1 + width * (round_ > 0) + width**2 * max(0, round_ - 1)


def grow(reader, offsets, width, levels):
    """The tree after `levels` draft passes: the committed entries' pass and levels - 1 rounds.

    `offsets` (d2t) are added to draft ids to give target ids.
    """
    output = reader.outputs()[-1]
    score, token = _children(reader, offsets, output, width)
    tree = Tree(list(score), list(token), [0])
    beam = [(token[i], score[i], i, output, []) for i in range(width)]
    for round_ in range(levels - 1):
        tree.parent += [index + offset(round_, width) for _, _, index, _, _ in beam]
        entries = [reader.add(t, feature, round_, seen) for t, _, _, feature, seen in beam]
        outputs = reader.outputs()
        scores, tokens = [], []
        for (_, above, _, _, _), entry in zip(beam, entries, strict=True):
            step, found = _children(reader, offsets, outputs[entry], width)
            scores += [above + one for one in step]
            tokens += found
        tree.score += scores
        tree.token += tokens
        beam = [
            (
                tokens[c],
                scores[c],
                c,
                outputs[entries[c // width]],
                [*beam[c // width][4], entries[c // width]],
            )
            for c in top(scores, width)
        ]
    return tree


def _children(reader, offsets, output, width):
    log_prob = reader.log_probs(output)
    best = top(log_prob, width)
    return [log_prob[one] for one in best], [int(one + offsets[one]) for one in best]


def parent_of(tree, candidate, width):
    """Number of a candidate's parent, None for the root."""
    above = tree.parent[candidate // width]
    return None if above == 0 else above - 1


def select(tree, root, size, width):
    """The `size` candidates of highest score, in the order of their numbers, behind the root."""
    best = sorted(top(tree.score, size))
    node = {candidate: 1 + place for place, candidate in enumerate(best)} | {None: 0}
    parent = [0] + [node[parent_of(tree, candidate, width)] for candidate in best]
    mask = np.eye(len(parent), dtype=bool)
    mask[:, 0] = True
    for row in range(1, len(parent)):
        mask[row] |= mask[parent[row]]
    depth = [int(row.sum()) - 1 for row in mask]
    return Chosen([root] + [tree.token[candidate] for candidate in best], parent, mask, depth)


def paths(parent):
    """One list of nodes from the root to every leaf."""
    leaves = [node for node in range(len(parent)) if node not in parent[1:] and node] or [0]
    found = []
    for leaf in leaves:
        path = [leaf]
        while path[0]:
            path.insert(0, parent[path[0]])
        found.append(path)
    return found


def evaluate_posterior(token, parent, choice):
    """The path with the longest run of drafted tokens that the target chose itself.

    Returns the run's nodes from the root on, and the target's choice behind them.
    """
    best = [0]
    for path in paths(parent):
        run = 0
        while run + 1 < len(path) and token[path[run + 1]] == choice[path[run]]:
            run += 1
        if run + 1 > len(best):
            best = path[: run + 1]
    return best, choice[best[-1]]


def dense(tree, width, max_levels):
    """The same candidates in blocks: score and token [D, W, W], parent [D, W]; -inf = no node.

    The root's W children come first and fill one slot; from the second level on, W * W candidates
    fill a level.
    """
    score = np.full(max_levels * width**2, -np.inf)
    token = np.zeros(max_levels * width**2, int)
    parent = np.zeros((max_levels, width), int)
    places = [one if one < width else one + width**2 - width for one in range(len(tree.score))]
    score[places], token[places] = tree.score, tree.token
    for candidate in range(width, len(tree.score), width):
        group = candidate // width - 1
        above = parent_of(tree, candidate, width)
        within = above if above < width else (above - width) % width**2
        parent[1 + group // width, group % width] = within
    shape = (max_levels, width, width)
    return score.reshape(shape), token.reshape(shape), parent


def drawn(random, width, levels, steps, vocabulary):
    """A tree whose children cost one of `steps` each (<= 0; few values make ties)."""
    tree = Tree(list(random.choice(steps, width)), _distinct(random, vocabulary, width), [0])
    beam = [(tree.score[i], i) for i in range(width)]
    for round_ in range(levels - 1):
        tree.parent += [index + offset(round_, width) for _, index in beam]
        scores = [above + step for above, _ in beam for step in random.choice(steps, width)]
        tree.score += scores
        tree.token += [one for _ in beam for one in _distinct(random, vocabulary, width)]
        beam = [(scores[c], c) for c in top(scores, width)]
    return tree


def _distinct(random, vocabulary, width):
    return random.choice(vocabulary, width, replace=False).tolist()
