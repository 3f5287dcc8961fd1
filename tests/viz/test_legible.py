"""The rule for figures sees what cannot be read; the tests in e2e hold every figure of the notebooks to it."""

import matplotlib.pyplot as plt
import pytest

from moe_course import viz
from moe_course.viz import legible, style


@pytest.fixture(autouse=True)
def drawn():
    viz.use_style()
    yield
    plt.close("all")


def panels(*titles, width=4.0):
    figure, axes = plt.subplots(1, len(titles), figsize=(width, 2), squeeze=False)
    for ax, title in zip(axes[0], titles, strict=True):
        ax.plot([0, 1], [0, 1])
        ax.set(title=title, xlabel="step", ylabel="loss")
    return figure


def test_a_figure_that_can_be_read():
    assert legible.faults(panels("One", "Two")) == []


def test_a_title_wider_than_its_figure():
    (fault,) = legible.faults(panels("A title that is far too long for such a small figure, and then some"))
    assert fault.startswith("cut off: “A title that")


def test_a_title_over_its_neighbour():
    assert legible.faults(panels("A title too long for its own panel", "Two")) == [
        "“A title too long for its own panel” lies over “Two”"
    ]


def apart(points, first="One"):
    """Two panels whose titles have so many points between them."""
    figure, axes = plt.subplots(1, 2, figsize=(4, 2), layout="none")
    titles = [ax.set_title(title) for ax, title in zip(axes, (first, "Two"), strict=True)]
    for ax in axes:
        ax.set(xticks=[], yticks=[])
    figure.draw_without_rendering()
    end = titles[0].get_window_extent().x1 + points * figure.dpi / 72
    place = axes[0].get_position()
    axes[1].set_position([end / figure.bbox.width, place.y0, 0.2, place.height])
    return figure


def test_a_title_that_touches_its_neighbour():
    assert legible.faults(apart(2)) == ["“One” touches “Two”"]
    assert legible.faults(apart(12)) == []


@pytest.mark.parametrize("points", [12, 2, -12])
def test_a_title_that_comes_too_near_makes_room(points):
    figure = apart(points, "A title of several words")
    style.as_html(figure, "two panels")
    assert legible.faults(figure) == []
    sizes = {title.get_fontsize() for title in legible._titles(figure)}
    assert len(sizes) == 1, "all alike"
    assert (sizes == {11.0}) == (points > legible.GAP)
    assert min(sizes) > 8


def test_words_over_words():
    figure = panels("One")
    for x in (0.5, 0.52):
        figure.axes[0].text(x, 0.5, "words")
    assert legible.faults(figure) == ["“words” lies over “words”"]


def test_a_panel_without_a_title_needs_one_over_the_whole():
    figure = panels("One", "")
    assert legible.faults(figure) == ["no title over panel 1"]
    figure.suptitle("Both")
    assert legible.faults(figure) == []
    figure.axes[1].set_visible(False)
    figure.suptitle("")
    assert legible.faults(figure) == []


def test_labels_of_ticks_outside_the_axes_do_not_count():
    figure = panels("One")
    figure.axes[0].set_xticks([0, 0.5, 5], ["0", "1/2", "nowhere to be seen, and very long"])
    figure.axes[0].set_xlim(0, 1)
    figure.axes[0].set(yscale="log", ylim=(1e-10, 1))
    assert legible.faults(figure) == []


def test_it_is_demanded_only_where_the_environment_asks(monkeypatch):
    monkeypatch.delenv("MOE_COURSE_LEGIBLE", raising=False)
    style.as_html(panels("One", ""), "two panels")
    monkeypatch.setenv("MOE_COURSE_LEGIBLE", "1")
    with pytest.raises(ValueError, match="no title over panel 1"):
        style.as_html(panels("One", ""), "two panels")
