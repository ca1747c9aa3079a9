-- By release: studies that were read, their readings, minutes of one, and what alerts led to.
WITH readings AS (
    SELECT
        studies.release,
        said.case_id,
        label_id,
        author,
        moment,
        row_number() OVER (PARTITION BY said.case_id, author ORDER BY moment, label_id) AS place
    FROM said
    JOIN studies ON studies.case_id = said.case_id
    WHERE source = 'radiologist' AND state = 'closed'
),
opened AS (
    SELECT
        label_id,
        max(unix_millis(reviews.time)) AS moment
    FROM readings
    JOIN reviews ON reviews.case_id = readings.case_id AND reviews.person = readings.author
    WHERE kind = 'view' AND page = 'images' AND unix_millis(reviews.time) <= readings.moment
    GROUP BY label_id
),
read_studies AS (
    SELECT
        release,
        count(DISTINCT case_id) AS studies,
        count(*) AS readings,
        median((readings.moment - opened.moment) / 60000.0) AS minutes
    FROM readings
    LEFT JOIN opened ON opened.label_id = readings.label_id
    WHERE place = 1
    GROUP BY release
),
alerts AS (
    SELECT
        case_id,
        alert_id,
        row_number() OVER (PARTITION BY case_id ORDER BY time, entry_id) AS place
    FROM reviews
    WHERE kind = 'alert'
),
events AS (
    SELECT
        case_id,
        alert_id,
        ordered,
        row_number() OVER (PARTITION BY case_id, alert_id ORDER BY time DESC, entry_id DESC) AS place
    FROM reviews
    WHERE kind = 'alert_event' AND ordered IS NOT NULL
),
orders AS (
    SELECT
        studies.release,
        sum(CASE WHEN ordered = 'blood_test' THEN 1 ELSE 0 END) AS blood_tests,
        sum(CASE WHEN ordered = 'expert' THEN 1 ELSE 0 END) AS experts
    FROM alerts
    JOIN events ON events.case_id = alerts.case_id AND events.alert_id = alerts.alert_id
    JOIN studies ON studies.case_id = alerts.case_id
    WHERE alerts.place = 1 AND events.place = 1 AND state = 'closed'
    GROUP BY studies.release
),
releases AS (
    SELECT DISTINCT release FROM studies
)
SELECT
    releases.release,
    coalesce(studies, 0) AS studies,
    coalesce(readings, 0) AS readings,
    minutes,
    coalesce(blood_tests, 0) AS blood_tests,
    coalesce(experts, 0) AS experts
FROM releases
LEFT JOIN read_studies ON read_studies.release = releases.release
LEFT JOIN orders ON orders.release = releases.release
