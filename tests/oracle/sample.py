"""Sampling in plain Python: Hugging Face's warpers, and EAGLE's test of children, in f64."""

import math


def scores(logits, seen, temperature=1.0, penalty=1.0, top_p=1.0, top_k=0):
    """Warped logits, -inf = cut; ties at a border stay together."""
    found = [logit / temperature for logit in logits]
    for token in seen:
        found[token] = found[token] * penalty if found[token] < 0 else found[token] / penalty
    if top_p < 1:
        found = cut_nucleus(found, top_p)
    if 0 < top_k < len(found):
        least = sorted(found)[-top_k]
        found = [score if score >= least else -math.inf for score in found]
    return found


def cut_nucleus(found, top_p):
    """From the least probable on, tokens go while all that is gone is at most 1 - top_p."""
    chance, gone = probabilities(found), 0.0
    order = sorted(range(len(found)), key=lambda token: found[token])
    cut = set()
    for token in order[:-1]:
        gone += chance[token]
        if gone > 1 - top_p:
            break
        cut.add(token)
    return [-math.inf if token in cut else found[token] for token in range(len(found))]


def probabilities(found):
    """Softmax."""
    most = max(found)
    weight = [math.exp(score - most) for score in found]
    return [one / sum(weight) for one in weight]


def test_children(chance, children, uniforms, gumbel):
    """The token behind a node by the sequential rule, and how many children were rejected."""
    left = list(chance)
    for rejected, (child, uniform) in enumerate(zip(children, uniforms, strict=False)):
        if uniform < left[child]:
            return child, rejected
        left[child] = 0.0
        rest = sum(left)
        left = [one / rest for one in left]
    drawn = [
        math.log(one) + noise if one else -math.inf for one, noise in zip(left, gumbel, strict=True)
    ]
    return max(range(len(drawn)), key=lambda token: drawn[token]), len(children)


def walk(chance_of, children_of, draw):
    """Accepted rows and the token behind them; `draw(depth, chance, children)` gives a token."""
    row, path = 0, []
    while True:
        children = children_of(row)
        token = draw(len(path), chance_of(row, path), [name for name, _ in children])
        matching = [child for name, child in children if name == token]
        if not matching:
            return path, token
        row = matching[0]
        path.append(row)
