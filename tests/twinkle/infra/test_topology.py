from twinkle import DeviceMesh
from twinkle.infra.topology import table


def test_a_line_a_rank_with_its_own_device() -> None:
    mesh = DeviceMesh.from_sizes(dp_size=2, tp_size=2)

    assert table(mesh, [([0, 1], "left", ["4", "5"], 17), ([2, 3], "right", ["0", "1"], 123)]) == [
        "rank  data  dp  tp  node   device  process",
        "0     0     0   0   left   4       17",
        "1     0     0   1   left   5       17",
        "2     1     1   0   right  0       123",
        "3     1     1   1   right  1       123",
    ]


def test_ranks_without_devices_are_on_the_cpu_and_axes_of_one_are_left_out() -> None:
    assert table(DeviceMesh(), [([0], "left", [], 17)]) == [
        "rank  data  node  device  process",
        "0     0     left  cpu     17",
    ]
