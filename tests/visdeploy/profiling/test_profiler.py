"""The profiler: stages by name, added up from any number of threads."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from visdeploy.profiling import OFF, Profiler, Stage


def test_threads_lose_no_call():
    profiler = Profiler()

    def work(_):
        for _ in range(2_000):
            profiler.add(Stage.GRAPH, 0.5)
        for item in profiler.iterate(Stage.DECODE, range(500)):
            with profiler.stage(Stage.TRACKING):
                assert item >= 0

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert {stage: each.calls for stage, each in profiler.stages.items()} == {
        Stage.GRAPH: 16_000, Stage.DECODE: 4_000, Stage.TRACKING: 4_000,
    }  # fmt: skip
    assert profiler.stages[Stage.GRAPH].seconds == 8_000
    assert profiler.total == pytest.approx(sum(profiler.seconds.values()))


def test_a_stage_is_known_by_its_name():
    profiler = Profiler()
    with profiler.stage(Stage.OUTPUTS):
        pass
    assert profiler.stages["decode of outputs"].calls == 1
    assert str(Stage.OUTPUTS) == "decode of outputs"


def test_a_stage_that_raises_is_counted():
    profiler = Profiler()
    with pytest.raises(ValueError, match="planted"), profiler.stage(Stage.GRAPH):
        raise ValueError("planted")
    assert profiler.stages[Stage.GRAPH].calls == 1


def test_the_profiler_that_is_off_collects_nothing():
    with OFF.stage(Stage.GRAPH):
        assert list(OFF.iterate(Stage.DECODE, [1, 2])) == [1, 2]
    assert OFF.stages == {}
