-- Blood tests and follow-up, by release, source and kind of answer: studies answered, tested, and found sick.
WITH known AS (
    SELECT
        case_id,
        source,
        finding,
        row_number() OVER (PARTITION BY case_id, source ORDER BY moment DESC, label_id DESC) AS place
    FROM said
    WHERE source IN ('blood_test', 'follow_up') AND finding IS NOT NULL
),
answered AS (
    SELECT
        release,
        answer,
        count(*) AS studies
    FROM studies
    WHERE state = 'closed'
    GROUP BY release, answer
)
SELECT
    studies.release,
    source,
    studies.answer,
    max(answered.studies) AS answered,
    count(*) AS tested,
    sum(CASE WHEN known.finding = 'pneumonia' THEN 1 ELSE 0 END) AS sick
FROM known
JOIN studies ON studies.case_id = known.case_id
JOIN answered ON answered.release = studies.release AND answered.answer = studies.answer
WHERE place = 1 AND state = 'closed'
GROUP BY studies.release, source, studies.answer
