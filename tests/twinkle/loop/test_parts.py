from twinkle.loop.parts import sampling_params
from twinkle.sampler.config import SamplerConfig


def test_responses_stop_where_the_template_ends_a_turn() -> None:
    assert sampling_params(SamplerConfig(stop_token_ids=[3]), (7,)).stop_ids == {3, 7}
    assert sampling_params(SamplerConfig(ignore_eos=True), (7,)).stop_ids == frozenset()
