"""The replay in plain Python: trees are built and walked, texts are decoded cycle by cycle."""

import math
from functools import cache


def accepted(trace, config, position, levels, size):
    """Builds the tree of one cycle, verifies its best nodes and follows the text through them."""
    nodes = _tree(trace, config, position, levels)
    best = set(sorted(nodes, key=lambda node: (-nodes[node]["log_prob"], node))[:size])
    count, parent = 0, None
    for next_token in trace.continuation[position].tolist():
        children = [
            node
            for node in sorted(best)
            if nodes[node]["parent"] == parent and nodes[node]["token"] == next_token
        ]
        if not children:
            break
        count, parent = count + 1, children[0]
    return count


def _tree(trace, config, position, levels):
    """Nodes by flat index (level * W + slot) * W + child, with log_prob, token and parent index."""
    width = config.beam_width
    nodes = {}
    for level in range(levels):
        for slot in range(width if level else 1):
            for child in range(width):
                log_prob = float(trace.log_prob[position, level, slot, child])
                if log_prob == -math.inf:
                    continue
                above = None
                if level:
                    above = (level - 1) * width**2 + int(trace.parent[position, level, slot])
                token = int(trace.token[position, level, slot, child])
                nodes[(level * width + slot) * width + child] = {
                    "log_prob": log_prob,
                    "token": token,
                    "parent": above,
                }
    return nodes


def cycle_seconds(table, length, levels, size):
    """Linear between the measured contexts, constant outside them; `size` is an index."""
    points = [(int(c), float(table.cycle_seconds[i, levels - 1, size]))
              for i, c in enumerate(table.contexts)]  # fmt: skip
    if length <= points[0][0]:
        return points[0][1]
    for (before, low), (after, high) in zip(points, points[1:], strict=False):
        if length <= after:
            return low + (high - low) * (length - before) / (after - before)
    return points[-1][1]


def cycle(trace, table, config, position, levels, size):
    """Committed tokens and seconds of one cycle; `size` is an index into config.sizes."""
    count = accepted(trace, config, position, levels, config.sizes[size])
    committed = min(count + 1, int(trace.tokens_left[position]))
    return committed, cycle_seconds(table, int(trace.length[position]), levels, size)


def constant(trace, table, config, levels, size):
    """[committed, seconds, cycles] of every text under one constant setting."""
    rows = []
    for first in _firsts(trace):
        position, left, seconds, cycles = first, int(trace.tokens_left[first]), 0.0, 0
        while left:
            committed, spent = cycle(trace, table, config, position, levels, size)
            position, left = position + committed, left - committed
            seconds, cycles = seconds + spent, cycles + 1
        rows.append([int(trace.tokens_left[first]), seconds, cycles])
    return rows


def optimum_seconds(trace, table, config):
    """Least seconds of every text, by trying every setting in every cycle."""

    @cache
    def least(position):
        options = []
        for levels in range(1, config.max_levels + 1):
            for size in range(len(config.sizes)):
                committed, seconds = cycle(trace, table, config, position, levels, size)
                over = committed == int(trace.tokens_left[position])
                options.append(seconds + (0.0 if over else least(position + committed)))
        return min(options)

    return [least(first) for first in _firsts(trace)]


def _firsts(trace):
    texts = trace.text.tolist()
    return [p for p in range(len(texts)) if p == 0 or texts[p] != texts[p - 1]]
