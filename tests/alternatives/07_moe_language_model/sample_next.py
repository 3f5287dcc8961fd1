import torch


def a_loop_in_python(logits_V, temperature, top_p, generator):
    if temperature == 0:
        return max(range(len(logits_V)), key=lambda v: logits_V[v].item())
    probs = torch.softmax((logits_V.double() - logits_V.double().max()) / temperature, dim=-1).tolist()
    chosen, reached = [], 0.0
    for token in sorted(range(len(probs)), key=lambda v: -probs[v]):
        if not chosen or reached < top_p:
            chosen.append(token)
            reached += probs[token]
    point = float(torch.rand((), generator=generator, dtype=torch.float64)) * reached
    for token in chosen:
        point -= probs[token]
        if point < 0:
            return token
    return chosen[0]


def with_the_gumbel_trick(logits_V, temperature, top_p, generator):
    if temperature == 0:
        return int(torch.argmax(logits_V))
    scaled_V = (logits_V.double() - logits_V.double().max()) / temperature
    probs_V = scaled_V.softmax(-1)
    likelier_V = (probs_V[None, :] * (probs_V[None, :] > probs_V[:, None])).sum(-1)
    inside_V = (likelier_V < top_p) | (probs_V == probs_V.max())
    noise_V = -torch.log(-torch.log(torch.rand(len(probs_V), generator=generator, dtype=torch.float64)))
    return int((scaled_V + noise_V).masked_fill(~inside_V, float("-inf")).argmax())


def masked_logits(logits_V, temperature, top_p, generator):
    if temperature == 0:
        return logits_V.argmax().item()
    sorted_V, order_V = torch.sort(logits_V.float() / temperature, descending=True)
    reached_V = sorted_V.softmax(-1).cumsum(-1)
    outside_V = torch.cat([torch.tensor([False]), reached_V[:-1] >= top_p])
    probs_V = sorted_V.masked_fill(outside_V, float("-inf")).softmax(-1)
    return order_V[torch.multinomial(probs_V, num_samples=1, generator=generator)].item()
