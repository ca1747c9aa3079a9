"""The step of attachments: each that a line mentions is there, and each that is there is the one it is named after."""

from __future__ import annotations

from functools import partial

from pneumoserve.ledger.scan import ListedObject, list_versions, retry
from pneumoserve.ledger.verification.context import SEALED, WANTED, Context
from pneumoserve.store import NotFoundError


def check_attachments(context: Context, outlived: bool) -> None:
    """Walk all attachments, by what the lines that were walked before mention.

    `outlived`: whether roll-ups are gone after their time, and with them the lines that mentioned something.

    Raises:
        StoreError: the store does not answer.
    """
    attachments, findings = context.ledger.attachments, context.findings
    noun = attachments.noun
    for listed in list_versions(context.ledger.store, attachments.prefix):
        digest = attachments.digest(listed.key)
        if digest is None:
            sentence = f"{attachments.prefix} holds nothing but {noun}s by their digest"
            findings.add("added", listed.key, sentence, sealed=False)
            continue
        why = context.mentioned.pop(digest, None)
        if why is None:
            context.counts["unnamed_images"] += 1
        sealed = bool(why and why & SEALED)
        may_be_gone = outlived if why is None else not why & WANTED
        if listed.deleted and not may_be_gone:
            findings.add("delete_marker", listed.key, f"a delete marker hides a {noun}, or hid it once", sealed)
        if listed.there:
            context.counts["images"] += 1
            context.executor.submit(partial(_hash, context, listed, digest, sealed))
    context.executor.finish()
    for digest, why in context.mentioned.items():
        if why & WANTED:
            key = attachments.key(digest.hex())
            findings.add("missing_image", key, attachments.missing_sentence, sealed=bool(why & SEALED))


def _hash(context: Context, listed: ListedObject, digest: bytes, sealed: bool) -> None:
    """In a thread: whether an object is the one that it is named after."""
    store, findings = context.ledger.store, context.findings
    if context.is_overwritten(listed.key, listed.others):
        findings.add("overwritten", listed.key, "it has versions of different bytes", sealed)
        return
    try:
        found = retry(store, partial(store.digest, listed.key))
    except NotFoundError:
        found = None
    if found is None:
        findings.add("unreadable", listed.key, "the store does not give it out", sealed)
    elif found != digest.hex():
        findings.add("altered", listed.key, "its bytes have another digest than its name", sealed)
    context.progress(f"{context.ledger.attachments.noun}s", 1)
