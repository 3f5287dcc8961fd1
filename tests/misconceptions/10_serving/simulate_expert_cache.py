from moe_course.grading.judge.catalogue import caught_by


def _checked(trace, capacity, policy):
    if policy not in ("lru", "lfu"):
        raise ValueError(policy)
    if capacity < 1:
        raise ValueError(capacity)


def _simulated(trace, capacity, policy, on_hit=None, victim=None, first=1, again=None):
    """The hits of a cache {expert: [uses, time]}; the options are the mistakes."""
    cached, hits = {}, 0
    for now, expert in enumerate(trace):
        if expert in cached:
            hits += 1
            cached[expert][0] += 1
            cached[expert][1] = now
            if on_hit:
                on_hit(cached[expert], now)
        else:
            if len(cached) == capacity:
                by_rule = {"lru": lambda e: cached[e][1], "lfu": lambda e: tuple(cached[e])}[policy]
                leaving = victim(cached, policy) if victim else min(cached, key=by_rule)
                gone = cached.pop(leaving)
                if again is not None:
                    again[leaving] = gone[0]
            cached[expert] = [first + (again or {}).get(expert, 0), now]
    return hits


def _library(trace, capacity, policy):
    return _simulated(trace, capacity, policy) / len(trace)


@caught_by("lru")
def first_in_first_out(trace, capacity, policy):
    """An expert that is used again and again was loaded long ago. Should it leave first?"""
    _checked(trace, capacity, policy)
    if policy == "lfu":
        return _library(trace, capacity, policy)
    cached, hits = [], 0
    for expert in trace:
        if expert in cached:
            hits += 1
        else:
            if len(cached) == capacity:
                cached.pop(0)
            cached.append(expert)
    return hits / len(trace)


@caught_by("lru")
def most_recent_leaves(trace, capacity, policy):
    """Which is more likely to be needed soon: the expert that was just used, or one unused for long?"""
    _checked(trace, capacity, policy)

    def victim(cached, policy):
        if policy == "lru":
            return max(cached, key=lambda e: cached[e][1])
        return min(cached, key=lambda e: tuple(cached[e]))

    return _simulated(trace, capacity, policy, victim=victim) / len(trace)


@caught_by("lfu")
def lru_for_both(trace, capacity, policy):
    """What does your cache count for "lfu"?"""
    _checked(trace, capacity, policy)
    return _library(trace, capacity, "lru")


@caught_by("lfu")
def most_used_leaves(trace, capacity, policy):
    """Which expert does "least frequently used" send away?"""
    _checked(trace, capacity, policy)

    def victim(cached, policy):
        if policy == "lfu":
            return min(cached, key=lambda e: (-cached[e][0], cached[e][1]))
        return min(cached, key=lambda e: cached[e][1])

    return _simulated(trace, capacity, policy, victim=victim) / len(trace)


@caught_by("ties")
def newest_of_equals_leaves(trace, capacity, policy):
    """Of two experts with equally many uses, the one used last leaves. Which one is more likely to return?"""
    _checked(trace, capacity, policy)

    def victim(cached, policy):
        if policy == "lfu":
            return min(cached, key=lambda e: (cached[e][0], -cached[e][1]))
        return min(cached, key=lambda e: cached[e][1])

    return _simulated(trace, capacity, policy, victim=victim) / len(trace)


@caught_by("ties")
def smallest_number_of_equals_leaves(trace, capacity, policy):
    """Of experts with equally many uses, does the number of an expert decide, or when it was used?"""
    _checked(trace, capacity, policy)

    def victim(cached, policy):
        if policy == "lfu":
            return min(cached, key=lambda e: (cached[e][0], e))
        return min(cached, key=lambda e: cached[e][1])

    return _simulated(trace, capacity, policy, victim=victim) / len(trace)


@caught_by("ties")
def first_loaded_of_equals_leaves(trace, capacity, policy):
    """Of experts with equally many uses, you send away the one that was loaded first. When was it used last?"""
    _checked(trace, capacity, policy)

    def victim(cached, policy):
        if policy == "lfu":
            return min(cached, key=lambda e: cached[e][0])  # dicts keep the order of loading
        return min(cached, key=lambda e: cached[e][1])

    return _simulated(trace, capacity, policy, victim=victim) / len(trace)


@caught_by("forgets")
def uses_remembered(trace, capacity, policy):
    """An expert leaves the cache and comes back. Does your count start anew, as the task says?"""
    _checked(trace, capacity, policy)
    return _simulated(trace, capacity, policy, again={}) / len(trace)


@caught_by("room")
def misses_counted(trace, capacity, policy):
    """Is a hit rate high when experts are found, or when they are missing?"""
    _checked(trace, capacity, policy)
    return 1 - _library(trace, capacity, policy)


@caught_by("room")
def hits_not_divided(trace, capacity, policy):
    """You count the hits. Of how many uses?"""
    _checked(trace, capacity, policy)
    return float(_simulated(trace, capacity, policy))


@caught_by("room")
def first_loads_left_out(trace, capacity, policy):
    """You divide by the uses that come after the first ones. Does a first load cost nothing?"""
    _checked(trace, capacity, policy)
    later = len(trace) - len(set(trace))
    return _simulated(trace, capacity, policy) / later if later else 0.0


@caught_by("room")
def hits_per_miss(trace, capacity, policy):
    """You compare hits with misses. Which share of all uses are hits?"""
    _checked(trace, capacity, policy)
    hits = _simulated(trace, capacity, policy)
    return hits / (len(trace) - hits)


@caught_by("lru")
def one_slot_too_many(trace, capacity, policy):
    """How many experts are in your cache before one has to leave?"""
    _checked(trace, capacity, policy)
    return _library(trace, capacity + 1, policy)


@caught_by("bad_values", form=True)
def nothing_checked(trace, capacity, policy):
    """What does your code answer for a policy that it does not know, or a cache without room?"""
    return _library(trace, max(capacity, 1), "lfu" if policy == "lfu" else "lru")


@caught_by("bad_values", form=True)
def capacity_not_checked(trace, capacity, policy):
    """What is a cache with room for 0, or for −2 experts?"""
    _checked(trace, max(capacity, 1), policy)
    return _library(trace, max(capacity, 1), policy)


@caught_by("bad_values", form=True)
def policy_not_checked(trace, capacity, policy):
    """A misspelt policy runs as another one. Who would notice?"""
    _checked(trace, capacity, "lru")
    return _library(trace, capacity, "lru" if policy == "lru" else "lfu")


@caught_by("bad_values", form=True)
def assertion_for_a_value_error(trace, capacity, policy):
    """`assert` vanishes under `python -O`. Which exception tells a caller that an argument is bad?"""
    assert capacity >= 1
    assert policy in ("lru", "lfu")
    return _library(trace, capacity, policy)


@caught_by("form", form=True)
def trace_used_up(trace, capacity, policy):
    """The caller wants to try another capacity on the same trace. Is it still there?"""
    _checked(trace, capacity, policy)
    rate = _library(trace, capacity, policy)
    trace.clear()
    return rate


@caught_by("form", form=True)
def zero_as_a_whole_number(trace, capacity, policy):
    """Sometimes you return an int, and sometimes a float. Can a caller rely on one type?"""
    _checked(trace, capacity, policy)
    hits = _simulated(trace, capacity, policy)
    return hits and hits / len(trace)
