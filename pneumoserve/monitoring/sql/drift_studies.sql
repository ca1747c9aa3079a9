-- One row a study and source: of several images the likeliest pneumonia, and the image least like a chest.
SELECT
    site,
    source,
    case_id,
    min(moment) AS moment,
    min_by(person, place) AS person,
    max(pneumonia_probability) AS probability,
    min(chest_probability) AS chest,
    sum(CASE WHEN chest_probability IS NULL THEN 1 ELSE 0 END) AS without_chest,
    sum(CASE WHEN stop IS NULL AND referred THEN 1 ELSE 0 END) AS referred
FROM drift_images
GROUP BY site, source, case_id
