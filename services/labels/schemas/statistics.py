"""How labelling does, on the wire."""

from pydantic import ConfigDict, RootModel

from services.labels.statistics import Statistics


class StatisticsView(RootModel[Statistics]):
    """How labelling does; `for_admins` is null to everybody else."""

    model_config = ConfigDict(use_attribute_docstrings=True)
