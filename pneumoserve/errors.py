"""The errors of pneumoserve, training and loadtest; each text is a sentence that says what to do, free of payload.

The number is the exit code of a command that ends by the error. Where there is none, the parent's counts.

    PneumoserveError 1
    ├── Failure                  a command ends without success; each has its own exit code
    ├── StackError 2             the local stack cannot start or go on
    ├── RedeployError            the local stack does not serve the release it was given
    ├── TrainingError            a training cannot go on
    ├── DatasetError 2           a dataset cannot be used
    ├── NotServing               the service does not answer rightly even before a load
    ├── WrongAnswer              an answer is not what was asked for
    ├── NoFilms                  there are no films to send
    ├── RolloutError 2           a rollout is refused
    ├── LeaseLostError           another process runs the rollout
    ├── AbortRequestedError      a person wants the rollout ended
    ├── PlanError 2              a rollout's plan cannot be followed
    ├── EvidenceError            an adjudicated set cannot be used
    ├── ClusterError 2           the cluster refuses
    │   ├── UnreachableError 1   the cluster does not answer
    │   └── ConflictError        another hand wrote in between
    ├── CallError                a call gets no answer
    ├── AbandonedError           a call ended before its body was whole
    ├── Refusal                  a call got no answer, and is on record
    ├── GatewaySecretError       the gateway's secret cannot be used
    ├── ReplayError              a replay cannot go on
    ├── ReleaseError             a release must not run
    ├── PackageError             a run cannot be packaged
    ├── DataError                a list of training films cannot be used
    ├── AcceptanceError 2        a release cannot be judged at a site, or its acceptance does not count
    ├── SitePlanError 2          a site's plan of an acceptance, or of when to stop, cannot be followed
    ├── PrevalenceError 2        a prevalence is none
    ├── DriftError               studies cannot be compared
    ├── StopError 2              a stop or resume that fronts would not believe
    ├── LabelError               labels are of predictions that cannot have any
    │   └── LabelFormatError 2   labels are stated wrongly
    ├── AlertPolicyError 2       a policy of alerts cannot be followed
    ├── LinkError                a link leads to no alert
    ├── ChannelError             a channel of alerts did not take a message
    ├── IntakeError              what DICOM intake is asked for cannot be done
    │   ├── IntakeRulesError 2   rules of intake, or an address, cannot be followed
    │   ├── ServiceAwayError     the service gives intake no answer now
    │   │   └── ServiceFaultError  it fails at the call
    │   ├── ServiceRefusalError  the service refuses intake's call for good
    │   ├── PeerAwayError        a destination of results takes nothing now
    │   ├── PeerRefusalError     a destination of results refuses for good
    │   │   └── ContextRefusalError  it does not take objects of a SOP class
    │   └── RequestRefusalError  a STOW-RS request is refused as a whole
    ├── EnvelopeError 2          an envelope, or a key for it, cannot be used
    ├── ReviewError              what reading room, alerts or random check are asked for cannot be done
    │   ├── ClaimError           a study is not this reader's to read
    │   ├── VerdictError 2       a verdict cannot be one
    │   ├── ArchiveLabelError 2  labels of the archive show nothing of other images
    │   └── DatabaseError        the review database does not answer
    ├── NoStudiesError 2         figures of studies that there are not
    │   └── EmptyPeriodError   nothing was answered in a time
    ├── ExportedError 2          figures of an export that there is not
    ├── ConsoleError 2           the console cannot start as it is set
    ├── EvidencePackageError     a file of evidence is not as it was signed
    ├── SiteFileError 2          a file does not say how a site uses a release
    ├── AlteredImageError        the store's copy of an image is another one
    ├── HeatMapError             there is no heat map of an answer
    │   └── HeatMapBusyError     a heat map is to be asked for again
    ├── ChanceKeyError 2         a file holds no key for draws
    ├── ExportError              an export cannot go on
    │   └── ExportTargetError 2  an export is to go nowhere that there is
    ├── ReferenceKeyError        a file holds no key for references
    ├── ImageError               a film cannot be read
    │   └── NotDecodedError      a film was not decoded, through no fault of its own
    ├── EndError                 a decode worker is of no use any more
    ├── LargeFilm                a sound film takes long to decode
    ├── SealerError              the sealer cannot seal
    ├── SealError                bytes are no seal to trust
    ├── SegmentError             bytes are no segment to trust
    ├── ReceiptError 2           a text is no receipt
    ├── TimeStampError 2         there is no time stamp that counts
    ├── RetentionError 2         an expiry contradicts a lock
    ├── ApiError                 the API server does not take a Secret
    ├── KeyFileError 2           a key file cannot be used
    ├── TracingError 2           calls are to be traced, and cannot be
    └── StoreError               the store did not do what was asked
        └── NotFoundError        the store has no such object
"""

from __future__ import annotations

__all__ = ["PneumoserveError", "exit_code_of"]


class PneumoserveError(Exception):
    """Base of all errors that have a sentence for people; `exit_code` is that of a command which ends by one."""

    exit_code: int = 1


def exit_code_of(error: BaseException) -> int | None:
    """The exit code of a command that ends by an error; None where it is a fault of ours, which keeps its trace."""
    if isinstance(error, PneumoserveError):
        return error.exit_code
    return 2 if isinstance(error, FileNotFoundError) else None
