"""People against other judges, on the wire."""

from pydantic import ConfigDict, RootModel

from services.runs_api.human_agreement import HumanAgreement


class HumanAgreementView(RootModel[HumanAgreement]):
    """People against the others."""

    model_config = ConfigDict(use_attribute_docstrings=True)
