-- mart: ed_visit
-- use: care
-- tables: person, visit_occurrence, visit_detail, measurement, condition_occurrence, death, concept_ancestor
--
-- OMOP Common Data Model 5.4 (https://ohdsi.github.io/CommonDataModel/cdm54.html). The query keeps to
-- what DuckDB and PostgreSQL share: files, a file a table, and a database give the same rows. In a
-- database the tables are found by the search path of the user who connects.
--
-- A visit is an Emergency Room Visit (9203) or an Emergency Room and Inpatient Visit (262), however many
-- rows of other visits it leads to. Inputs end with triage: a vital sign counts from arrival up to two
-- hours after it and never past the visit's end; a disease counts from the day before arrival backwards.
--
-- Midnight is CDM's way to write "time not told", so it is read as that: arrival_hour and the vital
-- signs of such a visit are missing, and a measurement at midnight belongs to no window. An end without
-- a time is the end of its day; an end equal to the start is CDM's way to write "end not told".
--
-- concept_ancestor may be an empty table: then only the concepts listed below are found, and not what
-- lies under them.
--
-- Left missing, as CDM has no standard place for it: acuity, the reasons for visit, follow_up, payer,
-- region, the site's tier. A site that records them adds them here.

WITH moment AS (
    SELECT
        CAST(visit_occurrence_id AS BIGINT) AS visit_id, CAST(person_id AS BIGINT) AS person_id,
        CAST(visit_concept_id AS BIGINT) AS kind, CAST(care_site_id AS BIGINT) AS care_site,
        CAST(admitted_from_concept_id AS BIGINT) AS came_from,
        CAST(discharged_to_concept_id AS BIGINT) AS went_to,
        CAST(visit_start_date AS DATE) AS start_date,
        COALESCE(CAST(visit_start_datetime AS TIMESTAMP), CAST(visit_start_date AS TIMESTAMP)) AS started_at,
        COALESCE(CAST(visit_end_date AS DATE), CAST(visit_end_datetime AS DATE)) AS end_date,
        CAST(visit_end_datetime AS TIMESTAMP) AS end_time
    FROM visit_occurrence
    WHERE CAST(visit_concept_id AS BIGINT) IN (9201, 9203, 262)
),
visit AS (
    SELECT
        visit_id, person_id, kind, care_site, came_from, went_to, start_date, started_at,
        started_at = CAST(CAST(started_at AS DATE) AS TIMESTAMP) AS hour_unknown,
        -- an end before the start is no end
        CASE WHEN end_date >= start_date THEN end_date END AS end_date,
        CASE
            WHEN end_date < start_date THEN NULL
            WHEN end_time IS NULL OR end_time = CAST(CAST(end_time AS DATE) AS TIMESTAMP)
                THEN CAST(end_date AS TIMESTAMP) + INTERVAL '1' DAY
            WHEN end_time > started_at THEN end_time
        END AS ended_at
    FROM moment
),
-- How far the data reach. The start of a visit tells it: an end may lie in the future by a slip.
observed AS (SELECT MIN(started_at) AS since, MAX(started_at) AS until FROM visit),
-- Stays in hospital. Visits that overlap or follow on the same or the next day are one stay: a transfer.
linked AS (
    SELECT
        *,
        CASE WHEN start_date <= 1 + MAX(COALESCE(end_date, start_date)) OVER (
            PARTITION BY person_id ORDER BY started_at, visit_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) THEN 0 ELSE 1 END AS opens
    FROM visit
    WHERE kind IN (9201, 262)
),
inpatient AS (
    SELECT *, SUM(opens) OVER (PARTITION BY person_id ORDER BY started_at, visit_id) AS episode FROM linked
),
stay AS (
    SELECT
        person_id, episode,
        -- Still open where the visit that began last has no end.
        CASE WHEN MAX(CASE WHEN end_date IS NULL THEN start_date END) = MAX(start_date) THEN NULL
            ELSE MAX(end_date) END AS end_date,
        CASE WHEN MAX(CASE WHEN end_date IS NULL THEN start_date END) = MAX(start_date) THEN NULL
            ELSE MAX(COALESCE(ended_at, started_at)) END AS ended_at,
        BOOL_OR(COALESCE(went_to, 0) = 4216643) AS told_dead  -- Patient died
    FROM inpatient
    GROUP BY person_id, episode
),
emergency_part AS (
    -- Of a visit 262 the end is the end of the stay; when the department was left, a detail may tell.
    SELECT
        CAST(visit_occurrence_id AS BIGINT) AS visit_id,
        MAX(CAST(visit_detail_end_datetime AS TIMESTAMP)) AS ended_at
    FROM visit_detail
    WHERE CAST(visit_detail_concept_id AS BIGINT) = 9203
    GROUP BY CAST(visit_occurrence_id AS BIGINT)
),
ed AS (
    SELECT
        visit.*,
        CASE WHEN visit.kind = 9203 THEN visit.ended_at
            WHEN emergency_part.ended_at > visit.started_at THEN emergency_part.ended_at END AS departed_at
    FROM visit
    LEFT JOIN emergency_part ON emergency_part.visit_id = visit.visit_id
    WHERE visit.kind IN (9203, 262)
),
-- The stay that followed: it began after arrival and at most a day after the department was left.
candidate AS (
    SELECT
        ed.visit_id, inpatient.person_id, inpatient.episode,
        ROW_NUMBER() OVER (PARTITION BY ed.visit_id ORDER BY inpatient.started_at, inpatient.visit_id) AS place
    FROM ed
    JOIN inpatient ON inpatient.person_id = ed.person_id
    WHERE inpatient.visit_id = ed.visit_id
        OR (ed.kind = 9203
            AND (inpatient.started_at >= ed.started_at
                OR (inpatient.hour_unknown AND inpatient.start_date = ed.start_date))
            AND inpatient.started_at <= COALESCE(ed.departed_at, ed.started_at) + INTERVAL '1' DAY)
),
followed AS (
    SELECT candidate.visit_id, stay.end_date, stay.ended_at, stay.told_dead
    FROM candidate
    JOIN stay ON stay.person_id = candidate.person_id AND stay.episode = candidate.episode
    WHERE candidate.place = 1
),
-- Intensive care (32037) that began with the visit or within a day of its end.
intensive AS (
    SELECT
        CAST(person_id AS BIGINT) AS person_id,
        COALESCE(CAST(visit_detail_start_datetime AS TIMESTAMP),
            CAST(visit_detail_start_date AS TIMESTAMP)) AS started_at
    FROM visit_detail
    WHERE CAST(visit_detail_concept_id AS BIGINT) = 32037
),
critical AS (
    SELECT DISTINCT ed.visit_id
    FROM ed
    JOIN intensive ON intensive.person_id = ed.person_id
    WHERE (intensive.started_at >= ed.started_at
            OR intensive.started_at = CAST(ed.start_date AS TIMESTAMP))
        AND intensive.started_at <= COALESCE(ed.departed_at, ed.started_at) + INTERVAL '1' DAY
),
dead AS (
    SELECT
        CAST(person_id AS BIGINT) AS person_id,
        MIN(CAST(death_date AS DATE)) AS died_on,
        MIN(NULLIF(CAST(death_datetime AS TIMESTAMP),
            CAST(CAST(death_datetime AS DATE) AS TIMESTAMP))) AS died_at
    FROM death
    GROUP BY CAST(person_id AS BIGINT)
),
-- Vital signs: LOINC's concepts and SNOMED's, both standard.
vital_concept (concept, vital) AS (
    VALUES
        (3020891, 'temperature'), (4302666, 'temperature'),
        (3027018, 'heart_rate'), (4239408, 'heart_rate'),
        (3024171, 'respiratory_rate'), (4313591, 'respiratory_rate'),
        -- any method, and by cuff
        (3004249, 'sbp'), (4152194, 'sbp'), (21492239, 'sbp'),
        (3012888, 'dbp'), (4154790, 'dbp'), (21492240, 'dbp'),
        -- by pulse oximetry, and by any method
        (40762499, 'spo2'), (3016502, 'spo2'),
        (43055141, 'pain')  -- 0 to 10, as reported
),
-- In which units a value is read: (value - shift) / scale. A value in any other unit is left out, and
-- so is one without a unit where more than one is in use: 37 may be read wrongly, a gap may not. Rates
-- are per minute and scores have no unit, whether or not anybody wrote it down (0).
unit_rule (vital, unit, shift, scale) AS (
    VALUES
        ('temperature', 586323, 0.0, 1.0), ('temperature', 8653, 0.0, 1.0),  -- degree Celsius
        ('temperature', 9289, 32.0, 1.8),  -- degree Fahrenheit
        -- per minute, counts per minute
        ('heart_rate', 8541, 0.0, 1.0), ('heart_rate', 8483, 0.0, 1.0), ('heart_rate', 0, 0.0, 1.0),
        ('respiratory_rate', 8541, 0.0, 1.0), ('respiratory_rate', 8483, 0.0, 1.0),
        ('respiratory_rate', 0, 0.0, 1.0),
        ('sbp', 8876, 0.0, 1.0), ('dbp', 8876, 0.0, 1.0),  -- millimetre of mercury
        ('spo2', 8554, 0.0, 1.0),  -- per cent
        ('pain', 0, 0.0, 1.0), ('pain', 44777566, 0.0, 1.0)  -- score
),
reading AS (
    SELECT
        CAST(measurement_id AS BIGINT) AS measurement_id, CAST(person_id AS BIGINT) AS person_id,
        CAST(visit_occurrence_id AS BIGINT) AS visit_id,
        CAST(measurement_datetime AS TIMESTAMP) AS taken_at,
        unit_rule.vital,
        -- to a tenth, as instruments show it
        FLOOR((CAST(value_as_number AS DOUBLE PRECISION) - CAST(shift AS DOUBLE PRECISION))
            / CAST(scale AS DOUBLE PRECISION) * 10 + 0.5) / 10 AS reading
    FROM measurement
    JOIN vital_concept ON vital_concept.concept = CAST(measurement.measurement_concept_id AS BIGINT)
    JOIN unit_rule ON unit_rule.vital = vital_concept.vital
        AND unit_rule.unit = COALESCE(CAST(measurement.unit_concept_id AS BIGINT), 0)
    WHERE measurement.value_as_number IS NOT NULL
        -- "below 70" is no number: only "equals", said or not
        AND COALESCE(CAST(measurement.operator_concept_id AS BIGINT), 0) IN (0, 4172703)
),
-- What triage saw: the first value of each sign.
placed AS (
    SELECT
        ed.visit_id, reading.vital, reading.reading,
        ROW_NUMBER() OVER (PARTITION BY ed.visit_id, reading.vital
            ORDER BY reading.taken_at, reading.measurement_id) AS place
    FROM ed
    JOIN reading ON reading.person_id = ed.person_id
        AND COALESCE(reading.visit_id, ed.visit_id) = ed.visit_id
        AND reading.taken_at BETWEEN ed.started_at AND ed.started_at + INTERVAL '2' HOUR
        AND reading.taken_at <= COALESCE(ed.departed_at, ed.ended_at, reading.taken_at)
    WHERE NOT ed.hour_unknown
        AND reading.taken_at <> CAST(CAST(reading.taken_at AS DATE) AS TIMESTAMP)
),
triage AS (
    SELECT
        visit_id,
        MAX(CASE WHEN vital = 'temperature' THEN reading END) AS temperature,
        MAX(CASE WHEN vital = 'heart_rate' THEN reading END) AS heart_rate,
        MAX(CASE WHEN vital = 'respiratory_rate' THEN reading END) AS respiratory_rate,
        MAX(CASE WHEN vital = 'sbp' THEN reading END) AS sbp,
        MAX(CASE WHEN vital = 'dbp' THEN reading END) AS dbp,
        MAX(CASE WHEN vital = 'spo2' THEN reading END) AS spo2,
        MAX(CASE WHEN vital = 'pain' THEN reading END) AS pain
    FROM placed
    WHERE place = 1
    GROUP BY visit_id
),
-- Diseases, as standard SNOMED concepts; 1: whatever lies under the concept counts as well.
disease (flag, concept, below) AS (
    VALUES
        ('alcohol_misuse', 433753, 1), ('alcohol_misuse', 435243, 1),  -- abuse, dependence
        ('dementia', 4182210, 1), ('dementia', 378419, 1),  -- dementia, Alzheimer's disease
        ('asthma', 317009, 1), ('cancer', 443392, 1), ('cerebrovascular_disease', 381591, 1),
        ('chronic_kidney_disease', 46271022, 1), ('copd', 255573, 1), ('heart_failure', 316139, 1),
        -- coronary arteriosclerosis, ischaemic heart disease, myocardial infarction
        ('coronary_artery_disease', 317576, 1), ('coronary_artery_disease', 4185932, 1),
        ('coronary_artery_disease', 4329847, 1),
        ('depression', 440383, 1), ('diabetes_type_1', 201254, 1), ('diabetes_type_2', 201826, 1),
        ('diabetes_unspecified', 201820, 0),  -- below it lie both types
        ('end_stage_renal_disease', 193782, 1), ('hiv', 439727, 1), ('hyperlipidaemia', 432867, 1),
        ('thromboembolism', 440417, 1), ('thromboembolism', 4133004, 1),  -- of the lung, of deep veins
        ('hypertension', 316866, 1), ('hypertension', 320128, 1),  -- any, essential
        ('obesity', 433736, 1), ('osteoporosis', 80502, 1),
        ('sleep_apnoea', 442588, 1), ('sleep_apnoea', 313459, 0)  -- obstructive; type not given
),
disease_concept AS (
    SELECT flag, concept FROM disease
    UNION
    SELECT disease.flag, CAST(concept_ancestor.descendant_concept_id AS BIGINT)
    FROM disease
    JOIN concept_ancestor ON CAST(concept_ancestor.ancestor_concept_id AS BIGINT) = disease.concept
    WHERE disease.below = 1
),
first_known AS (
    SELECT
        CAST(condition_occurrence.person_id AS BIGINT) AS person_id,
        disease_concept.flag,
        MIN(CAST(condition_occurrence.condition_start_date AS DATE)) AS since
    FROM condition_occurrence
    JOIN disease_concept
        ON disease_concept.concept = CAST(condition_occurrence.condition_concept_id AS BIGINT)
    GROUP BY CAST(condition_occurrence.person_id AS BIGINT), disease_concept.flag
),
history AS (
    SELECT
        visit_id,
        BOOL_OR(flag = 'alcohol_misuse') AS alcohol_misuse, BOOL_OR(flag = 'dementia') AS dementia,
        BOOL_OR(flag = 'asthma') AS asthma, BOOL_OR(flag = 'cancer') AS cancer,
        BOOL_OR(flag = 'cerebrovascular_disease') AS cerebrovascular_disease,
        BOOL_OR(flag = 'chronic_kidney_disease') AS chronic_kidney_disease,
        BOOL_OR(flag = 'copd') AS copd, BOOL_OR(flag = 'heart_failure') AS heart_failure,
        BOOL_OR(flag = 'coronary_artery_disease') AS coronary_artery_disease,
        BOOL_OR(flag = 'depression') AS depression, BOOL_OR(flag = 'diabetes_type_1') AS diabetes_type_1,
        BOOL_OR(flag = 'diabetes_type_2') AS diabetes_type_2,
        BOOL_OR(flag = 'diabetes_unspecified') AS diabetes_unspecified,
        BOOL_OR(flag = 'end_stage_renal_disease') AS end_stage_renal_disease,
        BOOL_OR(flag = 'thromboembolism') AS thromboembolism, BOOL_OR(flag = 'hiv') AS hiv,
        BOOL_OR(flag = 'hyperlipidaemia') AS hyperlipidaemia,
        BOOL_OR(flag = 'hypertension') AS hypertension, BOOL_OR(flag = 'obesity') AS obesity,
        BOOL_OR(flag = 'sleep_apnoea') AS sleep_apnoea, BOOL_OR(flag = 'osteoporosis') AS osteoporosis
    FROM (
        SELECT ed.visit_id, COALESCE(first_known.flag, 'none') AS flag
        FROM ed
        LEFT JOIN first_known ON first_known.person_id = ed.person_id AND first_known.since < ed.start_date
    ) AS known
    GROUP BY visit_id
),
born AS (
    -- Without a day the 15th counts, without a month the first of July: the middle of what is known.
    SELECT
        CAST(person_id AS BIGINT) AS person_id, CAST(gender_concept_id AS BIGINT) AS gender,
        CAST(race_concept_id AS BIGINT) AS race, CAST(race_source_value AS VARCHAR) AS race_text,
        CAST(ethnicity_concept_id AS BIGINT) AS ethnicity,
        CAST(ethnicity_source_value AS VARCHAR) AS ethnicity_text,
        CAST(year_of_birth AS BIGINT) AS year,
        CASE WHEN month_of_birth IS NULL THEN 701
            ELSE CAST(month_of_birth AS BIGINT) * 100 + COALESCE(CAST(day_of_birth AS BIGINT), 15)
            END AS birthday,
        day_of_birth IS NULL AS guessed
    FROM person
),
aged AS (
    SELECT
        ed.*,
        gender, race, race_text, ethnicity, ethnicity_text, guessed,
        CAST(EXTRACT(YEAR FROM start_date) AS BIGINT) - year AS years,
        CASE WHEN EXTRACT(MONTH FROM start_date) * 100 + EXTRACT(DAY FROM start_date) < birthday
            THEN 1 ELSE 0 END AS to_come
    FROM ed
    LEFT JOIN born ON born.person_id = ed.person_id
),
told AS (
    SELECT
        aged.*,
        followed.visit_id IS NOT NULL AS stayed,
        followed.ended_at AS stay_end,
        dead.died_on,
        -- Died in care: on a day of it and, where the time is known, not after it had ended.
        COALESCE(aged.went_to = 4216643 OR followed.told_dead, false) OR COALESCE(
            dead.died_on BETWEEN aged.start_date
                AND CASE WHEN followed.visit_id IS NULL THEN aged.end_date ELSE followed.end_date END
            AND COALESCE(dead.died_at <= CASE WHEN followed.visit_id IS NULL THEN aged.departed_at
                ELSE followed.ended_at END, true),
            false) AS died_in_care,
        COALESCE(dead.died_at <= aged.started_at AND dead.died_on = aged.start_date
            AND NOT aged.hour_unknown, false) AS died_before,
        -- Whether a stay that followed would be in the data by now.
        observed.until >= COALESCE(aged.departed_at, aged.started_at) + INTERVAL '1' DAY AS seen_on,
        observed.since <= aged.started_at - INTERVAL '3' DAY AS seen_back
    FROM aged
    CROSS JOIN observed
    LEFT JOIN followed ON followed.visit_id = aged.visit_id
    LEFT JOIN dead ON dead.person_id = aged.person_id
),
outcome AS (
    SELECT
        told.*,
        CASE
            WHEN stayed THEN 'admitted'
            WHEN died_before THEN 'dead_on_arrival'
            WHEN died_in_care THEN 'died'
            WHEN end_date IS NULL THEN NULL
            WHEN went_to = 4021968 THEN 'left_against_advice'  -- self-discharge against medical advice
            WHEN NOT seen_on THEN NULL
            -- hospital, acute hospital, psychiatric hospital or facility: no stay here followed
            WHEN went_to IN (9201, 8717, 38004279, 38004284, 8971) THEN 'transferred'
            -- By CDM's convention nothing, or 0, is home; then home, home visit, home health, skilled
            -- nursing, nursing facility, rehabilitation, hospice. Anything else was not foreseen here.
            WHEN COALESCE(went_to, 0) IN (0, 8536, 581476, 38004195, 8863, 8676, 8920, 8546)
                THEN 'discharged'
        END AS disposition
    FROM told
)
SELECT
    CAST(outcome.visit_id AS VARCHAR) AS visit_id,
    CAST(outcome.person_id AS VARCHAR) AS patient_id,
    COALESCE(CAST(outcome.care_site AS VARCHAR), 'unknown') AS site,
    CAST(NULL AS VARCHAR) AS site_tier,
    CAST(NULL AS DOUBLE PRECISION) AS weight,
    outcome.started_at AS arrived_at,
    CASE WHEN NOT hour_unknown THEN CAST(EXTRACT(HOUR FROM started_at) AS BIGINT) END AS arrival_hour,
    CAST(EXTRACT(ISODOW FROM started_at) AS BIGINT) AS arrival_weekday,
    -- whole years; who was born this year, on a day not told, is not yet one
    CAST(CASE WHEN guessed AND years = 0 THEN 0 ELSE years - to_come END AS DOUBLE PRECISION) AS age,
    CASE gender WHEN 8532 THEN 'female' WHEN 8507 THEN 'male' END AS sex,
    -- CDM names one place that the person came from: by ambulance or not is told only where it is this
    CASE WHEN came_from IN (8668, 38004353) THEN true END AS ambulance,
    CASE WHEN came_from IN (8717, 38004279, 38004284, 8971) THEN true
        WHEN came_from IN (8536, 581476, 8863, 8676) THEN false END AS transferred_in,
    CASE WHEN came_from IN (8863, 8676) THEN true WHEN came_from IN (8536, 581476) THEN false
        END AS nursing_home,
    CASE WHEN EXISTS (
            SELECT 1 FROM ed AS earlier
            WHERE earlier.person_id = outcome.person_id
                AND COALESCE(earlier.care_site, -1) = COALESCE(outcome.care_site, -1)
                AND earlier.started_at < outcome.started_at
                AND earlier.started_at >= outcome.started_at - INTERVAL '3' DAY
        ) THEN true
        WHEN seen_back THEN false END AS seen_72h,
    CAST(NULL AS BOOLEAN) AS follow_up,
    temperature, heart_rate, respiratory_rate, sbp, dbp, spo2, pain,
    CAST(NULL AS BIGINT) AS acuity,
    CAST(NULL AS VARCHAR) AS reason_1, CAST(NULL AS VARCHAR) AS reason_2, CAST(NULL AS VARCHAR) AS reason_3,
    CAST(NULL AS VARCHAR) AS reason_4, CAST(NULL AS VARCHAR) AS reason_5,
    alcohol_misuse, dementia, asthma, cancer, cerebrovascular_disease, chronic_kidney_disease, copd,
    heart_failure, coronary_artery_disease, depression, diabetes_type_1, diabetes_type_2,
    diabetes_unspecified AND NOT diabetes_type_1 AND NOT diabetes_type_2 AS diabetes_unspecified,
    end_stage_renal_disease, thromboembolism, hiv, hyperlipidaemia, hypertension, obesity, sleep_apnoea,
    osteoporosis,
    CAST(NULL AS BOOLEAN) AS substance_misuse,  -- no one concept holds it without tobacco and alcohol
    CASE race WHEN 8527 THEN 'White' WHEN 8516 THEN 'Black' WHEN 8515 THEN 'Asian'
        WHEN 8557 THEN 'Native Hawaiian or Pacific Islander'
        WHEN 8657 THEN 'American Indian or Alaska Native' ELSE race_text END AS race,
    CASE ethnicity WHEN 38003563 THEN 'Hispanic or Latino' WHEN 38003564 THEN 'Not Hispanic or Latino'
        ELSE ethnicity_text END AS ethnicity,
    CAST(NULL AS VARCHAR) AS payer, CAST(NULL AS VARCHAR) AS region,
    departed_at,
    CASE WHEN stayed THEN stay_end WHEN disposition IS NOT NULL THEN departed_at END AS stay_ended_at,
    disposition,
    -- no intensive care anywhere in the data: then it is not recorded, which is no "no"
    CASE WHEN critical.visit_id IS NOT NULL THEN true
        WHEN disposition IS NOT NULL AND seen_on AND EXISTS (SELECT 1 FROM intensive) THEN false
        END AS critical_care,
    -- what became of those who went to another hospital is not here
    CASE WHEN died_in_care OR died_before THEN true
        WHEN died_on < start_date THEN NULL
        WHEN stayed AND stay_end IS NOT NULL THEN false
        WHEN disposition IN ('discharged', 'left_against_advice') THEN false END AS died
FROM outcome
LEFT JOIN triage ON triage.visit_id = outcome.visit_id
LEFT JOIN history ON history.visit_id = outcome.visit_id
LEFT JOIN critical ON critical.visit_id = outcome.visit_id
ORDER BY arrived_at, outcome.visit_id
