"""A result that a notebook shows as a small table; imports what that takes when it is shown, for jobs answer at once."""


class Shown:
    """A dataclass that a notebook shows: its attributes in order, figures with their intervals, then where its pages lie."""

    def _repr_html_(self) -> str:
        from histo_mlflow.pipeline.result_rows import table_of_result

        return table_of_result(self)
