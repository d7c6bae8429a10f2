"""Where the boxes of a graph stand: ranks from top to bottom, chains straight, long edges in lanes.

Sugiyama's steps: (1) a rank for each node, as late as its readers allow; (2) a lane of points for edges that
pass ranks, one for all readers of a node; (3) an order in each rank with few crossings; (4) columns: a node
stands below the leftmost that it reads where that crosses nothing; columns move together from the left.

A graph that grows wide in this way (the heads of a detector, all just above their Concat) is drawn otherwise:
ranks as early as can be, each chain in the leftmost column that is free, all lanes beside the boxes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

WIDE = 1000.0  # pixels
SWEEPS = 6  # over all ranks, to put each in order by its neighbours
GAP = 20.0  # between boxes of a rank; pixels
DOWN = 18.0  # between ranks
LANE = 14.0  # between a lane and what is beside it
MOST = 30_000  # lane points; an edge of a graph that would have more is drawn straight

Point = tuple[float, float]
Edge = tuple[int, int]
Apart = Collection[tuple[int | None, int]]  # vertices that need not stand below each other


@dataclass
class Drawing:
    """Pixels; y grows downwards."""

    width: float = 0
    height: float = 0
    boxes: list[Point] = field(default_factory=list)  # left, top
    edges: list[list[Point]] = field(default_factory=list)  # from a box's bottom to another's top


def place(sizes: Sequence[Point], edges: Sequence[Edge], loose: Collection[Edge] = ()) -> Drawing:
    """Place boxes of these (width, height); an edge leads from a lower index to a higher one.

    A node need not stand below what it has a loose edge to.
    """
    if not sizes:
        return Drawing()
    late = _placed(sizes, edges, loose, late=True)
    if late.width <= WIDE:
        return late
    return min(late, _placed(sizes, edges, loose, late=False), key=lambda drawing: drawing.width)


def _placed(sizes: Sequence[Point], edges: Sequence[Edge], loose: Collection[Edge], late: bool) -> Drawing:
    graph = _Graph(len(sizes), edges, late)
    widths = [w for w, _ in sizes]
    if late:
        _order(graph)
        x = _columns(graph, widths, {(graph.above(u, v), v) for u, v in loose})
    else:
        x = _slots(graph, max(widths))
    return _drawn(graph, sizes, x, edges)


class _Graph:
    """Vertices: the nodes, then the points of the lanes. Edges join neighbouring ranks only."""

    def __init__(self, n: int, edges: Sequence[Edge], late: bool) -> None:
        self.n = n
        self.rank = _ranks(n, edges, late)
        self.parents: list[list[int]] = [[] for _ in range(n)]
        self.children: list[list[int]] = [[] for _ in range(n)]
        self.lanes: dict[int, list[int]] = {}  # node -> points, from the rank below it on
        last: dict[int, int] = {}
        for u, v in edges:
            last[u] = max(last.get(u, 0), self.rank[v])
        if sum(max(0, r - self.rank[u] - 1) for u, r in last.items()) <= MOST:
            for u, r in last.items():
                self._lane(u, r)
        for u, v in dict.fromkeys(edges):
            if (above := self.above(u, v)) is not None:
                self._join(above, v)
        self.ranks: list[list[int]] = [[] for _ in range(max(self.rank) + 1)]
        for v, r in enumerate(self.rank):
            self.ranks[r].append(v)

    def _lane(self, u: int, last: int) -> None:
        above = u
        for r in range(self.rank[u] + 1, last):
            self.rank.append(r)
            self.parents.append([])
            self.children.append([])
            self._join(above, len(self.rank) - 1)
            above = len(self.rank) - 1
            self.lanes.setdefault(u, []).append(above)

    def _join(self, u: int, v: int) -> None:
        self.children[u].append(v)
        self.parents[v].append(u)

    def above(self, u: int, v: int) -> int | None:
        """What an edge from u comes from in the rank above v; None if it is drawn straight."""
        passed = self.rank[v] - self.rank[u] - 1
        return u if not passed else self.lanes[u][passed - 1] if u in self.lanes else None

    def places(self) -> list[int]:
        """The index of each vertex in its rank."""
        found = [0] * len(self.rank)
        for rank in self.ranks:
            for i, v in enumerate(rank):
                found[v] = i
        return found


def _ranks(n: int, edges: Sequence[Edge], late: bool) -> list[int]:
    """The longest way from the top.

    If `late`, what is read no more often than it reads stands just above its reader; else only inputs do.
    """
    reads: list[list[int]] = [[] for _ in range(n)]
    read_by: list[list[int]] = [[] for _ in range(n)]
    for u, v in edges:
        reads[v].append(u)
        read_by[u].append(v)
    rank = [0] * n
    for v in range(n):
        rank[v] = max((rank[u] + 1 for u in reads[v]), default=0)
    for v in reversed(range(n)):
        if read_by[v] and (len(reads[v]) <= len(read_by[v]) if late else not reads[v]):
            rank[v] = min(rank[w] for w in read_by[v]) - 1
    return rank


def _order(graph: _Graph) -> None:
    """Order each rank by its neighbours' middle, downwards and upwards; the best order is kept."""
    best, least = [list(r) for r in graph.ranks], _crossings(graph)
    for sweep in range(SWEEPS):
        if not least:
            break
        down = sweep % 2 == 0
        near = graph.parents if down else graph.children
        place = graph.places()

        def middle(v: int, near: list[list[int]] = near, place: list[int] = place) -> float:
            return sum(place[u] for u in near[v]) / len(near[v]) if near[v] else place[v]

        for rank in graph.ranks if down else reversed(graph.ranks):
            rank.sort(key=middle)
            for i, v in enumerate(rank):
                place[v] = i
        if (found := _crossings(graph)) < least:
            best, least = [list(r) for r in graph.ranks], found
    graph.ranks = best


def _depths(graph: _Graph) -> list[int]:
    """How many ranks still follow each vertex."""
    depth = [0] * len(graph.rank)
    for rank in reversed(graph.ranks):
        for v in rank:
            depth[v] = max((depth[w] + 1 for w in graph.children[v]), default=0)
    return depth


def _crossings(graph: _Graph) -> int:
    """Pairs of edges that cross, counted as inversions between neighbouring ranks."""
    place, total = graph.places(), 0
    for rank in graph.ranks:
        seen: list[int] = []
        for v in rank:
            ends = sorted(place[w] for w in graph.children[v])
            total += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return total


def _columns(graph: _Graph, widths: Sequence[float], apart: Apart) -> list[float]:
    """The middle of each vertex."""
    column = _aligned(graph, apart)
    left: dict[int, list[tuple[int, float]]] = {}  # column -> columns to its left, and how far it stays away
    waits = dict.fromkeys(column, 0)
    right: dict[int, list[int]] = {}
    for rank in graph.ranks:
        for a, b in pairwise(rank):
            left.setdefault(column[b], []).append((column[a], _apart(graph, widths, a, b)))
            right.setdefault(column[a], []).append(column[b])
            waits[column[b]] += 1
    x: dict[int, float] = {}
    ready = [c for c, n in waits.items() if not n]
    while ready:
        c = ready.pop()
        x[c] = max((x[a] + apart for a, apart in left.get(c, [])), default=0.0)
        for b in right.get(c, []):
            waits[b] -= 1
            if not waits[b]:
                ready.append(b)
    return [x[c] for c in column]


def _slots(graph: _Graph, width: float) -> list[float]:
    """The middle of each vertex: every chain in the leftmost column that is free, all lanes to the right."""
    depth, chained = _depths(graph), set[int]()
    chains: list[list[int]] = []
    for v in sorted(range(graph.n), key=lambda v: (graph.rank[v], -depth[v])):
        chain: list[int] = []
        while v not in chained:
            chained.add(v)
            chain.append(v)
            v = max((w for w in graph.children[v] if w < graph.n), key=depth.__getitem__, default=v)
        chains += [chain] if chain else []
    x = [0.0] * len(graph.rank)
    first = 0.0
    for group, step in ((chains, width + GAP), (list(graph.lanes.values()), LANE)):
        ends: list[int] = []  # of each column, the last rank that is taken
        for chain in sorted(group, key=lambda chain: graph.rank[chain[0]]):
            top = graph.rank[chain[0]]
            column = next((i for i, end in enumerate(ends) if end < top), len(ends))
            ends[column : column + 1] = [graph.rank[chain[-1]]]
            for v in chain:
                x[v] = first + column * step
        first += (len(ends) - 0.5) * width + (len(ends) - 1) * GAP + LANE
    return x


def _apart(graph: _Graph, widths: Sequence[float], a: int, b: int) -> float:
    """How far the middles of two neighbours are apart at least."""
    half = [widths[v] / 2 if v < graph.n else 0.0 for v in (a, b)]
    return sum(half) + (GAP if max(a, b) < graph.n else LANE)


def _aligned(graph: _Graph, apart: Apart) -> list[int]:
    """The column of each vertex, named after its topmost. Lanes are straight before chains are."""
    place, n = graph.places(), graph.n
    depth = _depths(graph)
    column = list(range(len(graph.rank)))
    for rank in graph.ranks[1:]:
        wishes = []
        for v in rank:
            near = [u for u in graph.parents[v] if (u, v) not in apart]
            if near:
                u = min(near, key=place.__getitem__)
                lanes = (u >= n) + (v >= n)
                wishes.append((lanes == 1, -lanes, -depth[v], place[v], u, v))
        taken: list[tuple[int, int]] = []
        for *_, u, v in sorted(wishes):
            a, b = place[u], place[v]
            if all((a - p) * (b - q) > 0 for p, q in taken):
                taken.append((a, b))
                column[v] = column[u]
    return column


def _drawn(graph: _Graph, sizes: Sequence[Point], x: Sequence[float], edges: Sequence[Edge]) -> Drawing:
    widths = [(sizes[v][0] if v < graph.n else 0.0) / 2 for v in range(len(x))]
    shift = LANE - min(middle - half for middle, half in zip(x, widths, strict=True))
    tops, bottoms, y = [], [], DOWN / 2
    for rank in graph.ranks:
        tops.append(y)
        y += max((sizes[v][1] for v in rank if v < graph.n), default=0.0)
        bottoms.append(y)
        y += DOWN
    xs = [value + shift for value in x]
    right = max(middle + half for middle, half in zip(xs, widths, strict=True))
    drawing = Drawing(right + LANE, y - DOWN / 2)
    drawing.boxes = [(xs[v] - widths[v], tops[graph.rank[v]]) for v in range(graph.n)]
    bends = {u: _bends([xs[d] for d in lane]) for u, lane in graph.lanes.items()}
    for u, v in edges:
        first, last = graph.rank[u], graph.rank[v]
        lane = graph.lanes.get(u, [])
        length = min(len(lane), last - first - 1)
        start = (_port(xs, widths, u, lane[0] if length else v), tops[first] + sizes[u][1])
        end = (_port(xs, widths, v, lane[length - 1] if length else u), tops[last])
        runs = bends[u][: bisect_left(bends[u], length)] if length else []
        drawing.edges.append([start])
        for i, j in pairwise([*runs, length] if runs else []):
            at = xs[lane[i]]
            drawing.edges[-1] += [(at, tops[first + 1 + i]), (at, bottoms[first + j])]
        drawing.edges[-1].append(end)
    return drawing


def _bends(xs: Sequence[float]) -> list[int]:
    """Where a lane begins, and where it changes its column."""
    return [i for i in range(len(xs)) if i == 0 or xs[i] != xs[i - 1]]


def _port(xs: Sequence[float], widths: Sequence[float], box: int, other: int) -> float:
    """Where on a box's edge a line to another vertex begins: straight above or below it if it can."""
    room = max(0.0, widths[box] - 12)
    return min(max(xs[other], xs[box] - room), xs[box] + room) if widths[other] == 0 else xs[box]
