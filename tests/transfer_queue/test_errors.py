import pickle

import pytest

from transfer_queue import errors
from transfer_queue.errors import BY_NAME, RequestError, TransferQueueError, nearest, rebuild


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_an_error_survives_the_wire_and_a_pickle(name: str) -> None:
    error = rebuild(name, "what happened", {"needed": 3})
    again = pickle.loads(pickle.dumps(error))

    assert type(error) is type(again) is BY_NAME[name]
    assert str(error) == str(again) == "what happened"
    assert error.details == again.details == {"needed": 3}


def test_every_error_is_a_value_error_or_a_time_out() -> None:
    others = [kind for kind in BY_NAME.values() if not issubclass(kind, ValueError | TimeoutError)]

    assert others == [TransferQueueError, errors.ClashError]
    assert errors.__doc__
    assert all(name in errors.__doc__ for name in BY_NAME)


def test_an_error_of_a_newer_controller_is_named() -> None:
    error = rebuild("NewError", "text", {})

    assert (type(error), str(error)) == (RequestError, "NewError: text")


def test_the_nearest_name_is_offered_if_there_is_one() -> None:
    assert nearest("batchsize", ["batch_size", "task"]) == " (did you mean 'batch_size'?)"
    assert nearest("zzz", ["batch_size"]) == ""
