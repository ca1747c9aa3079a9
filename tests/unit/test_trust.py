"""What a trust folder says: its two JSON files have one form each, and anything else starts nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.signing import KeyFileError, add_trusted, load_trust, revoke, write_public_key

DIGEST, OTHER = "95edae8d89d1" + "a" * 52, "b" * 64
KEY = "0011223344556677"


@pytest.fixture
def trust(tmp_path: Path) -> Path:
    write_public_key(Ed25519PrivateKey.generate(), tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"releases": [DIGEST[:12]]}, "releases.0 has 12 digits; write all 64 of the digest"),
        ({"releases": [DIGEST.upper()]}, "releases.0 has upper-case letters; write them in lower case"),
        ({"releases": [OTHER, f"sha256:{DIGEST}"]}, "releases.1 has a prefix; leave the digits alone"),
        ({"releases": [f"{DIGEST}\n"]}, "releases.0 is no digest of 64 lower-case hex digits"),
        ({"releases": [7]}, "releases.0 has another form"),
        ({"releases": DIGEST}, "releases has another form"),
        ({"releases": None}, "releases has another form"),
        ({"releases": {DIGEST: True}}, "releases has another form"),
        ({"release": [DIGEST]}, "release is no name that is known here"),
        ({"keys": [KEY.upper().replace("0", "A")]}, "keys.0 has upper-case letters"),
        ({"keys": [KEY[:8]]}, "keys.0 has 8 digits; write all 16 of the key id"),
        ([DIGEST], "has another form"),
        (f'{{"releases": ["{DIGEST}"], "releases": []}}', "releases is there twice"),
        ("", "cannot be read as JSON"),
        ("{'releases': []}", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
    ],
)
def test_a_list_of_revocations_of_another_form_is_refused(document: object, sentence: str, trust: Path) -> None:
    (trust / "revoked.json").write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(KeyFileError) as caught:
        load_trust(trust)
    assert str(caught.value).startswith("revoked.json in the trust folder is wrong: ")
    assert sentence in str(caught.value)
    assert "64 lower-case hex digits" in str(caught.value)


@pytest.mark.parametrize("name", ["Revoked.json", "revoked.jsn", "revoked", "revoked.json.txt", "POLICY.json"])
def test_a_file_of_nearly_the_right_name_is_refused(name: str, trust: Path) -> None:
    (trust / name).write_text(json.dumps({"releases": [DIGEST]}))
    with pytest.raises(KeyFileError, match=f"holds {name}; name it"):
        load_trust(trust)


def test_what_is_no_file_is_no_list_of_revocations(trust: Path) -> None:
    (trust / "revoked.json").symlink_to(trust / "nowhere")
    with pytest.raises(KeyFileError, match="cannot be read"):
        load_trust(trust)
    (trust / "revoked.json").unlink()
    (trust / "revoked.json").mkdir()
    with pytest.raises(KeyFileError, match="cannot be read"):
        load_trust(trust)


def test_the_one_form_counts(trust: Path) -> None:
    (trust / "revoked.json").write_text(json.dumps({"keys": [KEY], "releases": [DIGEST]}))
    found = load_trust(trust)
    assert (found.revoked_keys, found.revoked_releases) == ({KEY}, {DIGEST})
    (trust / "revoked.json").write_text("{}")
    assert not load_trust(trust).revoked_releases


def test_a_key_file_may_have_any_name(trust: Path) -> None:
    write_public_key(Ed25519PrivateKey.generate(), trust).rename(trust / "policy-board.pem")
    assert len(load_trust(trust).keys) == 2


@pytest.mark.parametrize("document", [{"signatures": 0}, {"signatures": "2"}, {"signatures": True}, {"signers": 2}])
def test_a_policy_of_another_form_is_refused(document: object, trust: Path) -> None:
    (trust / "policy.json").write_text(json.dumps(document))
    with pytest.raises(KeyFileError, match=r"policy\.json in the trust folder is wrong"):
        load_trust(trust)


def test_revoking_writes_the_form_that_is_read(trust: Path) -> None:
    (trust / "revoked.json").write_text(json.dumps({"keys": [KEY]}))
    assert [revoke(trust, OTHER), revoke(trust, DIGEST), revoke(trust, OTHER)] == [True, True, False]
    found = load_trust(trust)
    assert (found.revoked_keys, found.revoked_releases) == ({KEY}, {DIGEST, OTHER})
    (trust / "revoked.json").write_text('{"release": []}')
    with pytest.raises(KeyFileError, match="is no name"):
        revoke(trust, DIGEST)


def test_a_folder_without_keys_says_whose_belong_there(tmp_path: Path) -> None:
    with pytest.raises(
        KeyFileError, match=r"There is no trust folder writers; give the folder of the archive writers'"
    ):
        load_trust(tmp_path / "writers", "the archive writers'")
    (tmp_path / "writers").mkdir()
    with pytest.raises(KeyFileError, match=r"folder writers holds no public key .*; put the archive writers' public"):
        load_trust(tmp_path / "writers", "the archive writers'")
    with pytest.raises(KeyFileError, match="put the approvers' public keys there"):
        load_trust(tmp_path / "writers")


def test_a_public_key_is_added_to_a_trust_folder(trust: Path, tmp_path: Path) -> None:
    (file,) = trust.glob("*.pem")
    assert add_trusted(file, tmp_path / "other") == file.stem
    assert load_trust(tmp_path / "other").keys.keys() == load_trust(trust).keys.keys()
    with pytest.raises(KeyFileError, match=r"none\.pem holds no ed25519 public key in PEM; `pneumoserve release key`"):
        add_trusted(tmp_path / "none.pem", trust)
