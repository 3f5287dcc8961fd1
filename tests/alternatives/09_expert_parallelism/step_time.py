def event_by_event(load_R, seconds_per_token, bytes_out, bandwidth, latency):
    clock = latency + bytes_out / bandwidth
    clock = max(clock + load * seconds_per_token for load in load_R.tolist())
    return clock + latency + bytes_out / bandwidth


def summed_up(load_R, seconds_per_token, bytes_out, bandwidth, latency):
    parts = [sorted(map(float, load_R))[-1] * seconds_per_token, 2 * latency, 2 * bytes_out / bandwidth]
    return sum(parts)
