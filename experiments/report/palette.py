"""One colour per method and per part of a cycle, told apart with any colour vision (Okabe-Ito)."""

METHODS = {
    "autoregressive": "#9a9a9a",
    "eagle3": "#56b4e9",
    "best_constant": "#0072b2",
    "ltd": "#d55e00",
}
OPTIMUM = "#009e73"
PARTS = {"draft": "#e69f00", "verify": "#cc79a7", "policy": "#333333", "rest": "#d9d9d9"}
TEXT = "#1f2328"
FAINT = "#6b7280"
GRID = "#e5e7eb"
