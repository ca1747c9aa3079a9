-- Studies by release and by all that an estimate asks of them.
SELECT
    studies.release,
    state,
    counts,
    stratum,
    score >= threshold AS above,
    probability,
    outcome,
    truth,
    patient IS NOT NULL AS named,
    count(*) AS studies,
    max(opened) AS latest
FROM studies
LEFT JOIN thresholds ON thresholds.release = studies.release
GROUP BY
    studies.release, state, counts, stratum, score >= threshold, probability, outcome, truth, patient IS NOT NULL
