"""Statistics that others published, for comparison with those that notebook 08 measures."""

MIXTRAL_LAYERS = (0, 15, 31)
MIXTRAL_REPEATS = {
    "ArXiv": (0.140, 0.279, 0.227),
    "DM Mathematics": (0.141, 0.284, 0.197),
    "Github": (0.149, 0.281, 0.197),
    "Gutenberg": (0.139, 0.261, 0.263),
    "PhilPapers": (0.136, 0.253, 0.221),
    "PubMed Abstracts": (0.142, 0.246, 0.220),
    "StackExchange": (0.136, 0.272, 0.236),
    "Wikipedia (en)": (0.144, 0.236, 0.253),
}
"""Share of neighbouring tokens with the same first choice, Mixtral 8x7B, layers 0, 15 and 31, by part of the Pile.

Jiang et al. 2024, arXiv 2401.04088, table 5, columns "first choice". The paper's reference is 1/8.
"""
