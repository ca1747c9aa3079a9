-- One row a study in scope, and how it was answered. The same rules as derive.py of pneumoserve/review has.
WITH withdrawals AS (
    SELECT
        case_id,
        prediction_ids
    FROM reviews
    WHERE kind = 'withdrawal'
),
images AS (
    SELECT
        coalesce(study, prediction_id) AS case_id,
        unix_millis(predictions.time) AS moment,
        concat(unix_millis(predictions.time), prediction_id) AS place,
        predictions.release,
        subject,
        patient,
        origin,
        finding,
        referred,
        pneumonia_probability,
        stop
    FROM predictions
    -- Of an image that was rejected, an answer is neither right nor wrong.
    LEFT JOIN withdrawals
        ON withdrawals.case_id = coalesce(study, prediction_id)
        AND array_contains(withdrawals.prediction_ids, prediction_id)
    WHERE withdrawals.case_id IS NULL AND kind = 'prediction' AND arm = 'live' AND referred IS NOT NULL AND stored_key IS NOT NULL
),
cases AS (
    SELECT
        case_id,
        min(moment) AS opened,
        -- Of the first image; a function of a null would pass over it.
        min_by(release, place) AS release,
        nullif(min_by(coalesce(patient, ''), place), '') AS patient,
        -- A radiologist's choice is no sample: flagged studies are in no figure.
        min_by(coalesce(origin, ''), place) AS origin,
        max(CASE WHEN finding = 'pneumonia' THEN 2 WHEN finding IS NULL THEN 1 ELSE 0 END) AS gravity,
        max(CASE WHEN referred THEN 1 ELSE 0 END) AS referred,
        count(stop) AS stops,
        max(pneumonia_probability) AS score,
        max(CASE WHEN subject = asked.one_site THEN 1 ELSE 0 END) AS of_site
    FROM images CROSS JOIN asked
    GROUP BY case_id
)
SELECT
    case_id,
    opened,
    cases.release,
    patient,
    CASE
        WHEN gravity = 1 OR referred = 1 THEN 'referred' WHEN gravity = 2 THEN 'pneumonia' ELSE 'normal'
    END AS answer,
    score,
    -- While a release was stopped it judged nothing.
    CASE WHEN opened >= asked.closing THEN 'open' WHEN stops > 0 THEN 'stopped' ELSE 'closed' END AS state,
    opened + asked.closed_after AS closes
FROM cases CROSS JOIN asked
WHERE cases.origin <> 'flagged'
    AND (asked.since IS NULL OR opened >= asked.since)
    AND (asked.ending IS NULL OR opened < asked.ending)
    AND (asked.one_release IS NULL OR cases.release = asked.one_release)
    AND (asked.one_site IS NULL OR of_site = 1)
