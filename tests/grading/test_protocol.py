import json
import math
import struct

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_course.grading.exercises.protocol import ForbiddenImport, Opaque, Outcome, Raised, plain, raised
from moe_course.grading.worker.wire import MAX_TENSORS, REPLY, REQUEST, ProtocolError, decode, encode
from moe_course.published import PRESETS

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from([Opaque("a.b"), Raised("E", ("E", "Exception"), "why"), PRESETS["mixtral-8x7b"]])
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


def with_types(value):
    """A value with the types of its parts, because 1 == 1.0 == True."""
    if isinstance(value, list | tuple):
        return type(value), [with_types(item) for item in value]
    if isinstance(value, dict):
        return dict, {key: with_types(item) for key, item in value.items()}
    return type(value), value


@given(values)
@settings(max_examples=200, deadline=None)
def test_plain_values_survive(value):
    assert with_types(decode(encode(plain(value)))) == with_types(value)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -0.0, 5e-324])
def test_odd_floats_survive(number):
    assert decode(encode(number)).hex() == number.hex()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(2, 3),
        torch.randn(3, 2).T,
        torch.randn(2, 3, 4).permute(2, 0, 1),
        torch.randn(4, 6)[:, ::2],
        torch.ones(1).expand(3, 2),
        torch.tensor(3),
        torch.arange(6).view(1, 6)[:, 2],
        torch.empty(0, 4),
        torch.tensor([True, False]),
        torch.randn(3).bfloat16(),
        torch.tensor([[2**62, -1]]),
        torch.tensor([math.nan, math.inf]),
        torch.randn(3, dtype=torch.float64),
    ],
    ids=lambda t: f"{t.dtype}{tuple(t.shape)}{t.stride()}",
)
def test_tensors_survive(tensor):
    back = decode(encode(tensor))
    assert back.dtype == tensor.dtype
    torch.testing.assert_close(back, tensor, rtol=0, atol=0, equal_nan=True)


def test_strided_inputs_arrive_strided():
    assert not decode(encode(plain(torch.randn(4, 3).T))).is_contiguous()


def test_decoded_tensors_are_independent_and_writable():
    tensor = torch.zeros(3)
    one, two = decode(encode([tensor, tensor]))
    one += 1
    assert two.sum() == 0
    assert tensor.sum() == 0


class Sly(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


class SlyTensor(torch.Tensor):
    pass


@pytest.mark.parametrize(
    "value",
    [Sly(3), object(), print, torch.randn(2).as_subclass(SlyTensor), torch.empty(2, device="meta"), {1, 2}],
)
def test_anything_else_is_opaque(value):
    assert type(plain(value)) is Opaque
    assert type(plain([value])[0]) is Opaque


def test_a_lookalike_of_a_registered_dataclass_is_opaque():
    lookalike = type("Outcome", (), {"value": 1})
    assert type(plain(lookalike())) is Opaque


def test_a_cycle_ends():
    loop = []
    loop.append(loop)
    decode(encode(plain(loop)))


def test_hostile_exception_is_described():
    class Nasty(ValueError):
        def __str__(self):
            raise SystemExit

    described = raised(Nasty())
    assert described.type_name == "Nasty"
    assert "ValueError" in described.bases


def frame(header, body=b""):
    text = json.dumps(header).encode()
    return struct.pack(">QQ", len(text), len(body)) + text + body


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\0" * 15,
        struct.pack(">QQ", 1 << 40, 0),
        struct.pack(">QQ", 2, REPLY[1] + 1) + b"{}",
        frame({"value": 1, "tensors": []})[:-1],
        frame({"value": {"t": 0}, "tensors": []}),
        frame({"value": {"t": 0}, "tensors": [["float32", [2], [1]]]}, b"1234"),
        frame({"value": None, "tensors": []}, b"1234"),
        frame({"value": None, "tensors": [["float32", [2, 2], [100, 1]]]}, b"0" * 16),
        frame({"value": None, "tensors": [["float32", [-1], [1]]]}),
        frame({"value": None, "tensors": [["complex64", [1], [1]]]}, b"0" * 8),
        frame({"value": {"c": ["Popen", {}]}, "tensors": []}),
        frame({"value": {"c": ["ModelConfig", {"d_model": {"i": "0x1"}}]}, "tensors": []}),
        frame({"value": {"x": 1}, "tensors": []}),
        frame({"value": {"i": "0x1", "f": "0x1p0"}, "tensors": []}),
        frame({"tensors": []}),
        frame([1, 2]),
        struct.pack(">QQ", 4, 0) + b"\xff\xfe{}",
        frame({"value": {"l": []}, "tensors": []}).replace(b'{"l": []}', b'{"l": ' * 5 + b"[]" + b"}" * 4),
    ],
)
def test_malformed_frames_are_refused(bad):
    with pytest.raises(ProtocolError):
        decode(bad)


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_noise_is_refused_or_decoded_but_never_escapes(noise):
    body = struct.pack(">QQ", len(noise), 0) + noise
    for attempt in (noise, body):
        with pytest.raises(ProtocolError):
            decode(attempt)


def outcome(**fields):
    return frame({"value": {"c": ["Outcome", fields]}, "tensors": []})


@pytest.mark.parametrize(
    "bad",
    [
        outcome(requires_grad=True),
        outcome(requires_grad={"u": [{"i": "0x1"}]}),
        outcome(requires_grad={"l": []}),
        outcome(inputs="all of them"),
        outcome(error="ValueError"),
        outcome(error={"c": ["Opaque", {"type_name": "x"}]}),
        outcome(error={"c": ["Raised", {"type_name": "E", "bases": {"u": [None]}, "message": "x"}]}),
        outcome(error={"c": ["Raised", {"type_name": "E"}]}),
        outcome(score={"i": "0x64"}),
        frame({"value": {"c": ["Opaque", {"type_name": True}]}, "tensors": []}),
        frame({"value": {"c": ["Outcome"]}, "tensors": []}),
        frame({"value": {"i": "0x" + "f" * 5000}, "tensors": []}),
        frame({"value": {"f": "0x1p99999"}, "tensors": []}),
        frame({"value": [1], "tensors": []}),
        frame({"value": None, "tensors": [["float32", [0, 10**30], [1, 1]]]}),
        frame({"value": None, "tensors": [["float32", [1], [1]]]}, b"1234"),
        frame({"value": {"u": [{"t": 0}, {"t": 0}]}, "tensors": [["float32", [1], [1]]]}, b"1234"),
        frame({"value": {"t": -1}, "tensors": [["float32", [1], [1]]]}, b"1234"),
    ],
)
def test_dataclasses_hold_what_they_declare_and_values_stay_small(bad):
    with pytest.raises(ProtocolError):
        decode(bad)


def test_half_a_surrogate_pair_can_be_written():
    decode(encode(plain(["\ud800", {"\udfff": 1}])))[0].encode("utf-8")


def test_numbers_too_long_to_print_are_opaque():
    assert type(plain(10**5000)) is Opaque
    assert decode(encode(plain(10**1000))) == 10**1000


def test_what_is_too_large_is_not_sent():
    with pytest.raises(ProtocolError, match="too large"):
        encode(torch.zeros(REPLY[1] // 4 + 1))
    encode(torch.zeros(REPLY[1] // 4))
    with pytest.raises(ProtocolError, match="too large"):
        encode("x" * REPLY[0])
    assert len(decode(encode("x" * REPLY[0], REQUEST), REQUEST)) == REPLY[0]
    with pytest.raises(ProtocolError, match="too large"):
        decode(encode("x" * REPLY[0], REQUEST))


def many(count):
    specs = [["float32", [0], [1]]] * count
    return frame({"value": {"l": [{"t": place} for place in range(count)]}, "tensors": specs})


def test_only_so_many_tensors_travel_at_once():
    assert len(decode(many(MAX_TENSORS))) == MAX_TENSORS
    assert len(decode(encode([torch.zeros(0)] * MAX_TENSORS))) == MAX_TENSORS
    with pytest.raises(ProtocolError, match="tensors in one frame"):
        decode(many(MAX_TENSORS + 1))
    with pytest.raises(ProtocolError, match="too many"):
        encode([torch.zeros(0)] * (MAX_TENSORS + 1))


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ([2], [-1]),
        ([2, 1], [1, -1]),
        ([-2], [1]),
        ([2], [True]),
        ([2], [1.0]),
        ([2], [1, 1]),
        ([1] * 9, [1] * 9),
    ],
)
def test_shapes_and_strides_that_no_tensor_has(shape, strides):
    """Refused before PyTorch sees them: as_strided would accept some, and read outside of what was sent."""
    bad = frame({"value": {"t": 0}, "tensors": [["float32", shape, strides]]}, bytes(8))
    with pytest.raises(ProtocolError, match="a tensor of shape"):
        decode(bad)


def test_a_forbidden_import_is_what_an_exception_tells_of():
    def evade():
        try:
            raise ForbiddenImport("masked")
        except ImportError:
            raise ValueError("mine") from None

    with pytest.raises(ValueError, match="mine") as caught:
        evade()
    assert raised(caught.value).type_name == "ForbiddenImport"
    assert raised(ValueError("mine")).type_name == "ValueError"


class Slippery(str):
    def __getitem__(self, index):
        raise SystemExit


def test_a_message_is_a_plain_string():
    assert type(raised(ValueError(Slippery("x"))).message) is str


def test_outcome_crosses_whole():
    out = Outcome(value=(torch.ones(2), 3), requires_grad=(True,), inputs=(1.5,), error=None)
    back = decode(encode(plain(out)))
    assert back.requires_grad == (True,)
    assert torch.equal(back.value[0], torch.ones(2))
