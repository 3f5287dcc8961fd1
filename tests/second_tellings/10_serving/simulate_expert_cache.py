def _check(capacity, policy):
    if capacity <= 0:
        raise ValueError("no room")
    if policy != "lru" and policy != "lfu":
        raise ValueError("unknown policy")


def _run(trace, capacity, key):
    """key(expert, uses, last): the smallest leaves."""
    uses, last, hits = {}, {}, 0
    for step, expert in enumerate(trace):
        if expert in uses:
            hits += 1
            uses[expert] += 1
        else:
            if len(uses) >= capacity:
                victim = sorted(uses, key=lambda e: key(e, uses[e], last[e]))[0]
                del uses[victim]
            uses[expert] = 1
        last[expert] = step
    return hits


def first_in_first_out(trace, capacity, policy):
    _check(capacity, policy)
    if policy == "lfu":
        return _run(trace, capacity, lambda e, n, t: (n, t)) / len(trace)
    queue, hits = [], 0
    for expert in trace:
        if expert in queue:
            hits += 1
            continue
        queue.append(expert)
        if len(queue) > capacity:
            del queue[0]
    return hits / len(trace)


def lru_for_both(trace, capacity, policy):
    _check(capacity, policy)
    order, hits = [], 0
    for expert in trace:
        if expert in order:
            hits += 1
            order.remove(expert)
        elif len(order) == capacity:
            order.pop(0)
        order.append(expert)
    return hits / len(trace)


def most_used_leaves(trace, capacity, policy):
    _check(capacity, policy)
    key = (lambda e, n, t: t) if policy == "lru" else (lambda e, n, t: (-n, t))
    return _run(trace, capacity, key) / len(trace)


def newest_of_equals_leaves(trace, capacity, policy):
    _check(capacity, policy)
    key = (lambda e, n, t: t) if policy == "lru" else (lambda e, n, t: (n, -t))
    return _run(trace, capacity, key) / len(trace)


def smallest_number_of_equals_leaves(trace, capacity, policy):
    _check(capacity, policy)
    key = (lambda e, n, t: t) if policy == "lru" else (lambda e, n, t: (n, e))
    return _run(trace, capacity, key) / len(trace)


def uses_remembered(trace, capacity, policy):
    _check(capacity, policy)
    total, last, inside, hits = {}, {}, set(), 0
    for step, expert in enumerate(trace):
        total[expert] = total.get(expert, 0) + 1
        if expert in inside:
            hits += 1
        else:
            if len(inside) == capacity:
                key = (lambda e: last[e]) if policy == "lru" else (lambda e: (total[e], last[e]))
                inside.discard(min(inside, key=key))
            inside.add(expert)
        last[expert] = step
    return hits / len(trace)


def misses_counted(trace, capacity, policy):
    _check(capacity, policy)
    key = (lambda e, n, t: t) if policy == "lru" else (lambda e, n, t: (n, t))
    return (len(trace) - _run(trace, capacity, key)) / len(trace)


def hits_not_divided(trace, capacity, policy):
    _check(capacity, policy)
    key = (lambda e, n, t: t) if policy == "lru" else (lambda e, n, t: (n, t))
    return 1.0 * _run(trace, capacity, key)


def nothing_checked(trace, capacity, policy):
    key = (lambda e, n, t: (n, t)) if policy == "lfu" else (lambda e, n, t: t)
    return _run(trace, capacity if capacity > 0 else 1, key) / len(trace)
