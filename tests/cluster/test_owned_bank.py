"""Which workers own mean faces."""

import threading

from latse.train import owned_bank


def test_the_workers_on_the_first_ones_machine_that_see_its_folder_own_the_means(
    together, tmp_path, monkeypatch
):
    monkeypatch.setattr(owned_bank, "_machine", lambda: threading.current_thread().name)

    def owners(workers):
        threading.current_thread().name = "other" if workers.rank == 2 else "one"
        return owned_bank._owners(workers, tmp_path / ("elsewhere" if workers.rank == 1 else "shared"))

    assert together(4, owners) == [[0, 3]] * 4
    assert not list((tmp_path / "shared").iterdir()) and not (tmp_path / "elsewhere").exists()
