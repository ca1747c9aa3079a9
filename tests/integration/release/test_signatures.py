"""Signatures are added and never replaced, and an error about them says which keys, and what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pneumoserve.local.stack import REFERENCE_RUN, find_release
from pneumoserve.local.state import State
from pneumoserve.release import ReleaseError, verify
from pneumoserve.release.package import package, sign
from pneumoserve.release.push import sign_pushed, upload
from pneumoserve.signing import generate_key, key_id, merge_signatures, write_public_key
from pneumoserve.store import MemoryStore, S3Settings, S3Store
from tests.integration.release.conftest import Made
from tests.support.commands import invoke


def signers(release: Path, *keys: Ed25519PrivateKey, folder: Path) -> list[str]:
    """Who of these signed a release; they are trusted in a folder of their own."""
    for key in keys:
        write_public_key(key, folder)
    return [signature.key_id for signature in verify(release, folder).signatures]


def id_of(key: Ed25519PrivateKey) -> str:
    return key_id(key.public_key())


@pytest.fixture
def keys() -> list[Ed25519PrivateKey]:
    return [Ed25519PrivateKey.generate() for _ in range(3)]


def test_packaging_again_keeps_the_signatures(keys: list[Ed25519PrivateKey], tmp_path: Path) -> None:
    first, second, _ = keys
    folder = package(REFERENCE_RUN, tmp_path, first)
    sign(folder, second)
    both = (folder / "release.json.sig").read_bytes()
    for key in (first, None):
        assert package(REFERENCE_RUN, tmp_path, key) == folder
        assert (folder / "release.json.sig").read_bytes() == both
    assert signers(folder, first, second, folder=tmp_path / "trust") == [id_of(first), id_of(second)]


def test_pushing_again_keeps_what_was_signed_in_the_store(
    made: Made, keys: list[Ed25519PrivateKey], broken: Path, tmp_path: Path
) -> None:
    here, there, _ = keys
    (broken / "release.json.sig").unlink()
    store = MemoryStore()
    list(upload(broken, store))
    sign_pushed(broken.name, store, there)
    sign(broken, here)
    list(upload(broken, store))
    (broken / "release.json.sig").write_bytes(store.get(f"releases/{made.folder.name}/release.json.sig"))
    assert set(signers(broken, here, there, folder=tmp_path / "trust")) == {id_of(here), id_of(there)}


def test_merged_signatures_are_one_a_key_and_the_newer_one_counts() -> None:
    old, other = ({"key_id": name * 16, "signature": "old"} for name in "ab")
    new = {**old, "signature": "new"}
    present = {**old, "cosignatures": [other]}
    assert json.loads(merge_signatures(json.dumps(new).encode(), json.dumps(present).encode())) == {
        **new, "cosignatures": [other],
    }  # fmt: skip
    assert merge_signatures(b"garbled", None) == b"garbled"


def test_an_error_tells_an_unknown_signer_from_an_altered_release(
    made: Made, keys: list[Ed25519PrivateKey], broken: Path, tmp_path: Path
) -> None:
    (trusted,) = (path.stem for path in made.trust.iterdir())
    mend = f"`pneumoserve release sign {made.folder.name} --key FILE`"
    (broken / "release.json.sig").unlink()
    for key in keys[:2]:
        sign(broken, key)
    with pytest.raises(ReleaseError, match="is not signed by a trusted key") as caught:
        verify(broken, made.trust)
    said = str(caught.value)
    assert f"it is signed by {id_of(keys[0])} and {id_of(keys[1])}; trusted here are {trusted}" in said
    assert "`pneumoserve release trust FILE`" in said
    assert mend in said

    manifest = json.loads((made.folder / "release.json").read_bytes())
    manifest["policy"]["why"] = "another"
    altered = Path(shutil.copytree(made.folder, tmp_path / "altered"))
    (altered / "release.json").write_text(json.dumps(manifest))
    with pytest.raises(ReleaseError, match=f"was altered after key {trusted} signed it: release.json or") as caught:
        verify(altered, made.trust)
    assert caught.value.fault == "altered"

    trust = Path(shutil.copytree(made.trust, tmp_path / "trust"))
    (trust / "revoked.json").write_text(json.dumps({"keys": [trusted]}))
    with pytest.raises(ReleaseError, match=f"is signed by {trusted}, which is revoked") as caught:
        verify(made.folder, trust)
    assert mend in str(caught.value)
    # One trusted signature suffices, whoever else signed.
    sign(broken, keys[2])
    write_public_key(keys[2], trust)
    assert [each.key_id for each in verify(broken, trust).signatures] == [id_of(keys[2])]


def test_a_release_of_an_approver_is_served_once_they_are_trusted(tmp_path: Path) -> None:
    """What README types, then `serve --release`."""
    state = State(tmp_path / "state")
    state.make()
    key, trust, out = (str(tmp_path / name) for name in ("approver.pem", "trust", "releases"))
    assert invoke(["release", "key", key, "--trust", trust], {}).returncode == 0
    assert invoke(["package", "model-store/reference", "--out", out, "--key", key], {}).returncode == 0
    (folder,) = Path(out).iterdir()
    (public,) = Path(trust).iterdir()
    with pytest.raises(ReleaseError, match=f"signed by {public.stem}; .*`pneumoserve release trust FILE`"):
        find_release(state, str(folder))
    done = invoke(["release", "trust", str(public), "--state", str(state.folder)], {})
    assert done.stdout == f"key {public.stem} is trusted\n"
    assert find_release(state, str(folder)).id == folder.name
    refused = invoke(["release", "trust", key, "--state", str(state.folder)], {})
    assert refused.returncode == 2
    assert "approver.pem holds no ed25519 public key" in refused.stderr


def test_a_second_signature_lets_the_state_serve_as_before(tmp_path: Path) -> None:
    """What a first hour tried: to sign the state's own release with a key that it does not trust."""
    state = State(tmp_path / "state")
    state.make()
    release = find_release(state, None)
    generate_key(tmp_path / "approver.pem")
    words = ["release", "sign", release.id, "--key", str(tmp_path / "approver.pem"), "--state", str(state.folder)]
    assert invoke(words, {}).returncode == 0
    for wanted in (None, release.id):
        assert find_release(state, wanted).id == release.id
    assert len(json.loads((release.folder / "release.json.sig").read_bytes())["cosignatures"]) == 1


def test_several_releases_are_pushed_at_once_or_none(made: Made, s3_server: S3Settings, tmp_path: Path) -> None:
    settings = s3_server.in_bucket("push-several")
    store = S3Store(settings)
    store.ensure_bucket()
    renamed = Path(shutil.copytree(made.folder, tmp_path / "renamed"))
    (tmp_path / "notes").mkdir()
    wrong = invoke(["release", "push", str(renamed), str(tmp_path / "notes")], settings.to_env())
    assert wrong.returncode == 2
    assert "notes is no release, it holds no release.json" in wrong.stderr
    assert not list(store.list("releases/"))
    done = invoke(["release", "push", str(made.folder), str(renamed)], settings.to_env())
    assert done.returncode == 0, done.stderr
    pushed = {item.key.split("/")[1] for item in store.list("releases/")}
    assert pushed == {made.folder.name}
    store.close()
