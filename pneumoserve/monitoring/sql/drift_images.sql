-- One row an image that drift compares. The same rules as `read_history` of drift_watch.py has.
SELECT
    coalesce(subject, '') AS site,
    coalesce(nullif(modality, ''), format) AS source,
    coalesce(nullif(study, ''), prediction_id) AS case_id,
    unix_millis(time) AS moment,
    concat(unix_millis(time), prediction_id) AS place,
    coalesce(nullif(patient, ''), nullif(study, ''), prediction_id) AS person,
    referred,
    stop,
    format,
    modality,
    body_part,
    view_position,
    age_years,
    sex,
    pneumonia_probability,
    bacterial_probability,
    chest_probability
FROM predictions CROSS JOIN asked
WHERE kind = 'prediction' AND arm = 'live' AND referred IS NOT NULL AND stored_key IS NOT NULL
    AND pneumonia_probability IS NOT NULL
    AND predictions.release = asked.one_release
    AND (asked.since IS NULL OR unix_millis(time) >= asked.since)
    AND (asked.one_site IS NULL OR coalesce(subject, '') = asked.one_site)
