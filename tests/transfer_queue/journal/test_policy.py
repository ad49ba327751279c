from transfer_queue.journal import CompactionPolicy


def test_compaction_begins_when_the_segments_outweigh_the_snapshot_twice() -> None:
    policy = CompactionPolicy(segment_bytes=100)

    assert [policy.wants(0.0, held, 0) for held in (100, 101)] == [False, True]
    assert [policy.wants(0.0, held, 80) for held in (160, 161)] == [False, True]


def test_a_compaction_that_keeps_failing_is_tried_ever_more_rarely_and_warned_of_once_a_minute() -> None:
    policy = CompactionPolicy(segment_bytes=100)
    now, tries, warnings = 0.0, [], []
    while now < 300:
        if policy.wants(now, 1000, 0):
            tries.append(now)
            if policy.failed(now):
                warnings.append(now)
        now += 0.5

    assert tries == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]
    assert warnings == [0, 63, 123, 183, 243]


def test_a_success_forgets_the_failures() -> None:
    policy = CompactionPolicy(segment_bytes=100)
    for now in (0.0, 10.0, 20.0):
        policy.failed(now)
    policy.succeeded()

    assert policy.wants(20.0, 101, 0)
    policy.failed(20.0)
    assert policy.wants(21.0, 101, 0)
