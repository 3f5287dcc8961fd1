// What scrolls sideways can be reached with the keyboard, too.
function reachable() {
  for (const box of document.querySelectorAll("pre, .cell_output, .cell_output .output, .table-wrapper, .formula")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}
addEventListener("load", reachable);
addEventListener("resize", reachable);
addEventListener("toggle", reachable, true); // an answer that is unfolded
