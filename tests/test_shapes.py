"""The axis legend, and the check at the boundary of public functions."""

import re

import pytest
import torch

from moe_course import shapes
from moe_course.shapes import AXES, axes_of, check_axes

T, D, E, K = 6, 5, 7, 4


def test_the_sizes_come_back():
    sizes = check_axes(x_TD=torch.zeros(T, D), w_DE=torch.zeros(D, E), load_E=torch.zeros(E))
    assert sizes == {"T": T, "D": D, "E": E}


def test_a_wrong_number_of_dimensions_names_tensor_axes_and_shapes():
    with pytest.raises(ValueError, match=r"x_TD needs 2 axes \(T, D\).*x_TD \(2, 3, 5\).*w_DE \(5, 7\)"):
        check_axes(x_TD=torch.zeros(2, 3, D), w_DE=torch.zeros(D, E))


def test_one_letter_cannot_have_two_sizes():
    with pytest.raises(ValueError, match=r"w_DE has D = 7, expected 5.*x_TD \(6, 5\).*w_DE \(7, 5\)"):
        check_axes(x_TD=torch.zeros(T, D), w_DE=torch.zeros(E, D))


def test_a_letter_that_comes_twice_in_one_name_is_one_size():
    assert check_axes(counts_EE=torch.zeros(E, E)) == {"E": E}
    with pytest.raises(ValueError, match=r"counts_EE has E = 4, expected 7"):
        check_axes(counts_EE=torch.zeros(E, K))


def test_empty_axes_are_sizes_like_any_other():
    assert check_axes(x_TD=torch.zeros(0, D)) == {"T": 0, "D": D}


@pytest.mark.parametrize("name", ["x", "probs_te", "probs_", "TE", "_TE", "x_TX", "x_B1"])
def test_a_name_without_known_axes_is_refused(name):
    with pytest.raises(ValueError, match=re.escape(repr(name))):
        axes_of(name)


def test_the_docstring_and_the_dictionary_are_one_legend():
    in_docstring = re.findall(r"\b([A-Z])  (\S.*?)(?:\s{2,}|\n)", shapes.__doc__)
    assert dict(in_docstring) == AXES
    assert "time" not in AXES["T"]


def test_only_shapes_are_looked_at():
    on_meta = torch.zeros(T, D, device="meta")
    assert check_axes(x_TD=on_meta)["D"] == D


def test_it_compiles_into_one_graph_for_any_number_of_tokens():
    @torch.compile(backend="eager", fullgraph=True, dynamic=True)
    def scale(x_TD, w_D):
        return x_TD * w_D / check_axes(x_TD=x_TD, w_D=w_D)["D"]

    for tokens in (T, 11):
        assert scale(torch.ones(tokens, D), torch.ones(D)).shape == (tokens, D)
