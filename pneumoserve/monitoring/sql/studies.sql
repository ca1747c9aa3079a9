-- One row a study in scope: how likely it was to be read, what became of it, and whether it counts for its patient.
-- The same rules as pneumoserve/review has: the bands of sample.py, and `judge` of outcomes.py.
WITH draws AS (
    SELECT
        case_id,
        stratum,
        probability,
        row_number() OVER (PARTITION BY case_id ORDER BY time, entry_id) AS place
    FROM reviews
    WHERE kind = 'draw'
),
edges AS (
    SELECT
        release,
        normal_below,
        pneumonia_from,
        row_number() OVER (PARTITION BY release ORDER BY time, entry_id) AS place
    FROM reviews
    WHERE kind = 'sample_plan'
),
decisions AS (
    SELECT
        reviews.case_id,
        reviews.finding,
        row_number() OVER (PARTITION BY reviews.case_id ORDER BY time DESC, entry_id DESC) AS place
    FROM reviews
    JOIN answered ON answered.case_id = reviews.case_id
    WHERE kind = 'adjudication' AND unix_millis(time) < answered.closes
),
readings AS (
    SELECT
        said.case_id,
        said.finding,
        said.blind,
        row_number() OVER (PARTITION BY said.case_id, author ORDER BY moment, label_id) AS place
    FROM said
    JOIN answered ON answered.case_id = said.case_id
    WHERE source = 'radiologist' AND moment < answered.closes
),
counted AS (
    SELECT
        case_id,
        sum(CASE WHEN blind THEN 1 ELSE 0 END) AS blind,
        sum(CASE WHEN blind AND finding = 'pneumonia' THEN 1 ELSE 0 END) AS sick,
        sum(CASE WHEN blind AND finding = 'normal' THEN 1 ELSE 0 END) AS well,
        sum(CASE WHEN blind AND finding IS NULL THEN 1 ELSE 0 END) AS neither
    FROM readings
    WHERE place = 1
    GROUP BY case_id
),
edges_of_answers AS (
    SELECT
        release,
        answer,
        greatest(1e-6, least(1 - 1e-6, CASE WHEN answer = 'normal' THEN normal_below ELSE pneumonia_from END)) AS edge
    FROM edges CROSS JOIN (SELECT 'normal' AS answer UNION ALL SELECT 'pneumonia' AS answer) AS answers
    WHERE place = 1
),
distances AS (
    SELECT
        answered.*,
        CASE WHEN answered.answer = 'referred' THEN 1.0 ELSE draws.probability END AS probability,
        draws.stratum AS drawn_from,
        abs(
            ln(greatest(1e-6, least(1 - 1e-6, score)) / (1 - greatest(1e-6, least(1 - 1e-6, score))))
            - ln(edge / (1 - edge))
        ) AS distance
    FROM answered
    LEFT JOIN draws ON draws.case_id = answered.case_id AND draws.place = 1
    LEFT JOIN edges_of_answers
        ON edges_of_answers.release = answered.release AND edges_of_answers.answer = answered.answer
),
-- One study of each patient counts, by a hash that nobody chooses: `rank_of` of estimates.py.
chosen AS (
    SELECT min_by(case_id, sha2(concat('one study a patient', chr(0), case_id), 256)) AS case_id
    FROM answered
    WHERE patient IS NOT NULL
    GROUP BY release, state, patient
),
judged AS (
    SELECT
        distances.case_id,
        distances.release,
        distances.opened,
        distances.state,
        distances.patient,
        distances.answer,
        distances.score,
        distances.probability,
        CASE
            WHEN answer = 'referred' THEN answer
            WHEN drawn_from IS NOT NULL THEN drawn_from
            WHEN distance < 1 THEN concat(answer, '/near')
            WHEN distance < 3 THEN concat(answer, '/middle')
            WHEN distance IS NOT NULL THEN concat(answer, '/far')
            ELSE answer
        END AS stratum,
        CASE
            WHEN distances.probability IS NULL THEN 'not_drawn'
            WHEN counted.case_id IS NULL THEN 'unread'
            WHEN blind = 0 THEN 'not_blind'
            WHEN decisions.case_id IS NOT NULL AND decisions.finding IS NULL THEN 'cannot_tell'
            WHEN decisions.case_id IS NOT NULL OR 2 * sick > blind OR 2 * well > blind THEN 'read'
            WHEN 2 * neither > blind THEN 'cannot_tell'
            ELSE 'undecided'
        END AS outcome,
        CASE
            WHEN decisions.case_id IS NOT NULL THEN decisions.finding
            WHEN 2 * sick > blind THEN 'pneumonia'
            WHEN 2 * well > blind THEN 'normal'
        END AS truth
    FROM distances
    LEFT JOIN counted ON counted.case_id = distances.case_id
    LEFT JOIN decisions ON decisions.case_id = distances.case_id AND decisions.place = 1
)
SELECT
    judged.case_id,
    release,
    opened,
    state,
    patient,
    answer,
    score,
    probability,
    stratum,
    outcome,
    CASE WHEN outcome = 'read' THEN truth END AS truth,
    patient IS NULL OR chosen.case_id IS NOT NULL AS counts
FROM judged
LEFT JOIN chosen ON chosen.case_id = judged.case_id
