"""The paper's comparisons of methods (Tables 1, 5 and 11), under this library's names.

Its "grid search" is the best constant. Its C2T removes no node as far as can be seen (its committed
tokens are EAGLE-3's), so its numbers stand beside `c2t-as-run`. In Table 11 EAGLE-3's constants are
those of the Griffin draft.
"""

from experiments.report.paper import Cell, PaperRow, PaperTable


def _table(name: str, subject: str, model: str, *rows: tuple[str, str]) -> PaperTable:
    """Rows of "speedup committed" for the four tasks and their mean."""
    return PaperTable(name, subject, model, tuple(_row(*row) for row in rows))


def _row(method: str, numbers: str) -> PaperRow:
    values = [float(number) for number in numbers.split()]
    *tasks, mean = (Cell(*pair) for pair in zip(values[::2], values[1::2], strict=True))
    return PaperRow(method, tuple(tasks), mean)


TABLE1 = (
    _table(
        "Table 1",
        "greedy decoding",
        "Llama-3.1-8B",
        ("eagle3", "3.70 6.39  3.58 6.44  4.26 6.93  3.17 5.35  3.68 6.28"),
        ("ddd", "3.67 5.41  3.55 5.48  3.97 5.58  3.07 4.21  3.57 5.17"),
        ("svip", "3.65 6.21  3.47 6.21  4.04 6.73  3.12 4.78  3.57 5.98"),
        ("gammatune", "3.79 5.86  3.64 5.77  4.37 6.49  3.38 4.92  3.80 5.76"),
        ("c2t-as-run", "3.80 6.39  3.57 6.44  4.19 6.93  3.25 5.36  3.70 6.28"),
        ("disco", "3.70 6.11  3.56 6.18  4.14 6.51  3.22 5.05  3.66 5.96"),
        ("specdec++", "3.82 6.09  3.65 6.08  4.29 6.70  3.28 5.23  3.76 6.03"),
        ("best constant", "3.83 6.75  3.78 6.91  4.38 7.42  3.33 5.67  3.83 6.69"),
        ("ltd", "3.96 6.74  3.79 6.73  4.53 7.31  3.41 5.44  3.92 6.56"),
    ),
    _table(
        "Table 1",
        "greedy decoding",
        "Vicuna-13B",
        ("eagle3", "4.48 7.22  4.36 6.58  4.16 6.47  3.43 5.12  4.11 6.35"),
        ("ddd", "4.15 6.69  4.25 6.22  3.98 5.50  3.22 4.34  3.90 5.69"),
        ("svip", "4.02 7.74  3.86 6.79  3.77 6.53  3.02 4.96  3.67 6.51"),
        ("gammatune", "4.15 6.85  4.07 6.00  3.94 6.09  3.35 4.81  3.88 5.94"),
        ("c2t-as-run", "4.33 7.22  3.97 6.58  3.93 6.47  3.23 5.12  3.87 6.35"),
        ("disco", "4.48 7.08  4.13 6.49  4.02 6.29  3.31 5.05  3.99 6.23"),
        ("specdec++", "4.25 6.78  4.09 6.16  4.00 6.27  3.21 5.03  3.89 6.06"),
        ("best constant", "4.53 7.99  4.47 7.27  4.38 7.16  3.51 5.48  4.22 6.98"),
        ("ltd", "4.64 8.24  4.59 7.38  4.40 7.01  3.66 5.37  4.32 7.00"),
    ),
    _table(
        "Table 1",
        "greedy decoding",
        "DeepSeek-R1-Distill-Llama-8B",
        ("eagle3", "3.67 5.82  4.73 7.39  3.65 5.63  3.14 5.02  3.80 5.53"),
        ("best constant", "3.69 6.42  4.83 8.37  3.54 6.24  3.20 5.55  3.82 6.08"),
        ("ltd", "4.05 6.32  4.98 8.53  3.98 6.00  3.62 5.37  4.16 6.08"),
    ),
    _table(
        "Table 1",
        "greedy decoding",
        "Qwen3-14B",
        ("best constant", "2.34 3.40  2.75 3.95  2.15 2.90  1.86 2.65  2.28 3.23"),
        ("ltd", "2.44 3.34  2.82 3.92  2.24 2.87  1.98 2.62  2.37 3.19"),
    ),
    _table(
        "Table 1",
        "greedy decoding",
        "Qwen3-32B",
        ("best constant", "1.76 3.30  2.26 4.10  1.75 2.96  1.45 2.67  1.81 3.26"),
        ("ltd", "2.42 3.17  3.02 3.90  2.38 2.85  2.06 2.60  2.47 3.13"),
    ),
)

TABLE5 = (
    _table(
        "Table 5",
        "temperature 1",
        "Llama-3.1-8B",
        ("eagle3", "2.85 4.11  3.43 5.24  3.38 5.47  2.27 3.06  2.98 4.47"),
        ("ddd", "2.89 3.40  3.35 4.09  3.38 4.59  2.36 2.95  3.00 3.76"),
        ("svip", "2.74 3.41  3.21 4.92  3.19 4.95  2.31 3.20  2.86 4.12"),
        ("gammatune", "2.75 3.54  3.28 4.27  3.51 5.12  2.46 3.24  3.00 4.04"),
        ("c2t-as-run", "2.78 4.11  3.28 5.24  3.24 5.47  2.27 3.06  2.89 4.47"),
        ("disco", "2.82 3.82  3.26 5.08  3.30 5.18  2.20 2.88  2.90 4.24"),
        ("specdec++", "2.92 4.20  3.33 4.74  3.42 5.51  2.35 3.28  3.01 4.43"),
        ("best constant", "2.79 4.08  3.36 5.50  3.46 5.79  2.31 3.40  2.98 4.69"),
        ("ltd", "2.85 4.02  3.35 5.09  3.43 5.68  2.39 3.26  3.01 4.51"),
    ),
    _table(
        "Table 5",
        "temperature 1",
        "Vicuna-13B",
        ("eagle3", "3.60 5.55  3.68 5.64  3.40 5.49  3.08 4.64  3.44 5.33"),
        ("ddd", "3.40 5.05  3.58 5.46  3.43 5.00  2.96 4.11  3.34 4.91"),
        ("svip", "3.18 5.73  3.26 5.78  3.21 5.39  2.61 4.44  3.07 5.34"),
        ("gammatune", "3.43 5.36  3.32 5.26  3.39 4.95  2.99 4.44  3.28 5.00"),
        ("c2t-as-run", "3.38 5.66  3.41 5.63  3.27 5.54  2.83 4.65  3.22 5.37"),
        ("disco", "3.48 5.55  3.67 5.74  3.36 5.51  2.88 4.59  3.35 5.35"),
        ("specdec++", "3.61 5.58  3.64 5.63  3.34 5.39  3.02 4.55  3.40 5.29"),
        ("best constant", "3.58 6.30  3.81 6.39  3.61 6.01  3.00 4.93  3.50 5.91"),
        ("ltd", "3.82 6.40  3.75 6.38  3.65 6.20  3.26 4.97  3.62 5.99"),
    ),
    _table(
        "Table 5",
        "temperature 1",
        "DeepSeek-R1-Distill-Llama-8B",
        ("eagle3", "3.07 4.74  3.97 6.89  2.79 4.53  2.44 4.06  3.07 4.66"),
        ("best constant", "3.05 5.19  4.14 7.64  2.76 4.83  2.33 4.44  3.07 5.03"),
        ("ltd", "3.18 5.20  4.02 7.95  2.83 4.76  2.57 4.39  3.15 5.09"),
    ),
    _table(
        "Table 5",
        "temperature 1",
        "Qwen3-14B",
        ("best constant", "2.05 3.13  2.62 3.83  2.04 2.78  1.68 2.57  2.10 3.08"),
        ("ltd", "2.16 3.11  2.73 3.85  2.11 2.76  1.82 2.55  2.21 3.07"),
    ),
    _table(
        "Table 5",
        "temperature 1",
        "Qwen3-32B",
        ("best constant", "1.56 2.89  2.10 3.95  1.63 2.73  1.33 2.46  1.66 3.01"),
        ("ltd", "2.17 2.78  2.83 3.76  2.16 2.59  1.88 2.41  2.26 2.89"),
    ),
)

TABLE11 = (
    _table(
        "Table 11",
        "Griffin draft, greedy",
        "Meta-Llama-3-8B",
        ("eagle3", "1.83 4.82  3.18 5.16  2.98 4.79  2.20 3.96  2.55 4.68"),
        ("best constant", "2.81 5.11  3.19 5.47  2.95 5.04  2.18 4.10  2.78 4.93"),
        ("ltd", "2.88 4.98  3.13 5.45  2.98 5.01  2.23 4.10  2.81 4.89"),
    ),
)
