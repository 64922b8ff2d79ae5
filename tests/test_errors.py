"""The kinds of error: who catches what."""

from __future__ import annotations

import pickle

import pytest

import minisbert
from minisbert import errors

KINDS = [
    errors.MinisbertError,
    errors.CheckpointError,
    errors.ModelNotFoundError,
    errors.MissingExtraError,
    errors.NotFiniteError,
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_of_our_own_is_caught_by_the_base_and_has_its_name_at_the_top(kind: type[Exception]) -> None:
    with pytest.raises(minisbert.MinisbertError, match=r"^x: broken$"):
        raise kind("x: broken")
    assert getattr(minisbert, kind.__name__) is kind
    assert kind.__name__ in minisbert.__all__


def test_every_error_class_of_the_file_is_among_them() -> None:
    found = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert found == {*KINDS, errors.MinisbertWarning}


def test_a_missing_extra_is_an_import_error_too() -> None:
    with pytest.raises(ImportError):
        raise errors.MissingExtraError("pip install numpy")


@pytest.mark.parametrize("kind", [errors.CheckpointError, errors.ModelNotFoundError, errors.NotFiniteError])
def test_other_kinds_are_not_mistaken_for_wrong_arguments(kind: type[Exception]) -> None:
    assert not issubclass(kind, (TypeError, ValueError, OSError, ImportError))


def test_the_warning_is_a_user_warning_and_no_error() -> None:
    assert issubclass(minisbert.MinisbertWarning, UserWarning)
    assert not issubclass(minisbert.MinisbertWarning, minisbert.MinisbertError)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_keeps_its_message_on_the_way_from_another_process(kind: type[Exception]) -> None:
    arrived = pickle.loads(pickle.dumps(kind("model.safetensors: broken")))  # noqa: S301
    assert type(arrived) is kind
    assert str(arrived) == "model.safetensors: broken"


def test_the_real_thing_raises_them(tmp_path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(minisbert.CheckpointError):
        minisbert.load(tmp_path)
    with pytest.raises(minisbert.ModelNotFoundError):
        minisbert.load("no-organisation/no-model", local_files_only=True)


class PanicException(BaseException):
    """A bug in a Rust library, as Python sees it."""


@pytest.mark.parametrize("error", [ValueError("broken\nsecond line"), Exception("broken"), PanicException("broken")])
def test_whatever_a_rust_library_raises_at_a_file_is_an_error_of_the_checkpoint(error: BaseException) -> None:
    with pytest.raises(minisbert.CheckpointError, match=r"^x: broken$") as caught, errors.rust_errors(complaint):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), minisbert.CheckpointError("as it was")])
def test_an_interrupt_an_exit_and_an_error_of_ours_stay_what_they_are(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, errors.rust_errors(complaint):
        raise error
    assert caught.value is error


def test_an_error_without_a_text_is_told_by_its_kind() -> None:
    with pytest.raises(minisbert.CheckpointError, match=r"^x: MemoryError$"), errors.rust_errors(complaint):
        raise MemoryError


def complaint(reason: str) -> minisbert.CheckpointError:
    return minisbert.CheckpointError(f"x: {reason}")
