"""Numbers in the answers of a machine."""

from __future__ import annotations

import pytest

from pccpipe.machine.answers import df_column

GNU_K = "Filesystem     1024-blocks     Used Available Capacity Mounted on"
GNU_I = "Filesystem       Inodes  IUsed    IFree IUse% Mounted on"
MAC_K = "Filesystem   1024-blocks      Used Available Capacity  Mounted on"
MAC_I = "Filesystem   512-blocks      Used Available Capacity iused      ifree %iused  Mounted on"
MAC_ROOT = "/dev/disk3s1s1  965595304  21030208 441007424     5%  404167 2205037120    0%   /"


@pytest.mark.parametrize(
    ("head", "line", "column", "number"),
    [
        (GNU_K, "/dev/sda1 20000 15000 5000 75% /", "available", 5000),
        (GNU_I, "/dev/sda1 20000 15000 4000 75% /", "ifree", 4000),
        (GNU_I, "/dev/sda1 0 0 0 - /home/with a space", "ifree", None),  # btrfs
        (MAC_K, "map auto_home 0 0 7 100% /System/Volumes/Data/home", "available", 7),
        (MAC_I, MAC_ROOT, "ifree", 2205037120),
        (MAC_I, MAC_ROOT, "available", None),
        (GNU_I, "df: no such option", "ifree", None),
        (GNU_I, "", "ifree", None),
        ("", "/dev/sda1 20000 15000 5000 75% /", "available", None),
        (GNU_K, "/dev/sda1 20000", "available", None),
        (GNU_K, f"/dev/sda1 20000 1 {'9' * 40} 1% /", "available", None),
    ],
)
def test_columns_of_df_are_found_by_name(head: str, line: str, column: str, number: int | None) -> None:
    assert df_column(head, line, column) == number
