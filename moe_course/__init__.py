"""How Mixture-of-Experts models work: the library, graders and tools behind the notebooks."""
