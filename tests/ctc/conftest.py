import jax
import pytest

from natjax.ctc import AUTO, Implementation, _linear, _top_k


@pytest.fixture(autouse=True, scope="module")
def several_pieces():
    """The small arrays of these tests are cut into pieces as large ones are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_linear, "BYTES", dict.fromkeys(_linear.BYTES, 10_000))
        patch.setattr(_top_k, "BYTES", 10_000)
        jax.clear_caches()  # which do not know of the patch
        yield
    jax.clear_caches()


@pytest.fixture(params=[member for member in Implementation if member is not AUTO], ids=lambda member: member.value)
def implementation(request):
    """Every test that asks for it holds for every implementation there is."""
    return request.param


@pytest.fixture(params=[Implementation.SCAN], ids=lambda member: member.value)
def of_logits(request):
    """The implementations that are given logits, where one of them may be −inf."""
    return request.param
