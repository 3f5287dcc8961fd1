from collections import Counter, OrderedDict


def ordered_dict(trace, capacity, policy):
    if capacity < 1 or policy not in {"lru", "lfu"}:
        raise ValueError((capacity, policy))
    cache, hits = OrderedDict(), 0  # expert → uses; least recently used first
    for expert in trace:
        if expert in cache:
            hits += 1
            cache[expert] += 1
            cache.move_to_end(expert)
            continue
        if len(cache) >= capacity:
            victim = next(iter(cache)) if policy == "lru" else min(cache, key=cache.get)
            del cache[victim]
        cache[expert] = 1
    return hits / len(trace)


def set_and_counter(trace, capacity, policy):
    if not capacity > 0:
        raise ValueError("capacity")
    rules = {"lru": lambda e: last[e], "lfu": lambda e: (uses[e], last[e])}
    if policy not in rules:
        raise ValueError("policy")
    inside, uses, last, found = set(), Counter(), {}, []
    for step, expert in enumerate(trace):
        found.append(expert in inside)
        if expert not in inside:
            while len(inside) >= capacity:
                inside.remove(gone := min(inside, key=rules[policy]))
                uses.pop(gone)
            inside.add(expert)
        uses[expert] += 1
        last[expert] = step
    return sum(found) / len(found)
