import pytest

from natjax.ctc import AUTO, Implementation


@pytest.fixture(params=[member for member in Implementation if member is not AUTO], ids=lambda member: member.value)
def implementation(request):
    """Every test that asks for it holds for every implementation there is."""
    return request.param
