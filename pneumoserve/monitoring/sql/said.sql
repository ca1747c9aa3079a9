-- Labels, each with the study that it speaks of.
SELECT
    coalesce(images.study, images.prediction_id) AS case_id,
    labels.label_id,
    unix_millis(labels.time) AS moment,
    labels.source,
    labels.author,
    labels.finding,
    labels.blind
FROM labels
JOIN predictions AS images ON images.prediction_id = labels.prediction_id
WHERE images.kind = 'prediction'
