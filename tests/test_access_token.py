"""The token of a service: read from a file or the environment alike, and refused where no request could bring it."""

import pytest

from hf_vanilla_transformer.serving.access_token import TOKEN_VARIABLE, checked_token, read_token


def test_the_file_goes_before_the_environment_and_whitespace_around_is_no_part(tmp_path, monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert read_token() is None
    monkeypatch.setenv(TOKEN_VARIABLE, " of-the-environment\n")
    assert read_token() == "of-the-environment"
    (tmp_path / "token").write_text("\tof-the-file \n")
    assert read_token(tmp_path / "token") == "of-the-file"


@pytest.mark.parametrize("token", ["", " \n", "t\xf6ken", "two words", "a\nb", "a\x00b", "\u200b"])
def test_what_no_header_could_have_in_it_is_refused_and_not_repeated(token, tmp_path, monkeypatch):
    (tmp_path / "token").write_text(token, encoding="utf-8")
    with pytest.raises(ValueError, match="is to have one token of printable ASCII characters") as caught:
        read_token(tmp_path / "token")
    assert str(caught.value).startswith(str(tmp_path / "token"))
    assert not token.strip() or token not in str(caught.value)
    if "\x00" not in token:  # which no variable can have
        monkeypatch.setenv(TOKEN_VARIABLE, token)
        with pytest.raises(ValueError, match=f"the variable {TOKEN_VARIABLE} is to have one token"):
            read_token()


def test_a_token_is_returned_as_it_will_be_compared():
    assert checked_token(" a!~0-Z ") == "a!~0-Z"
