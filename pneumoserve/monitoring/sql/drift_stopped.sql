-- Images that were answered while the release was stopped, with all that says how it would have answered.
SELECT
    site,
    source,
    case_id,
    format,
    modality,
    body_part,
    view_position,
    age_years,
    sex,
    pneumonia_probability,
    bacterial_probability,
    chest_probability
FROM drift_images
WHERE stop IS NOT NULL
