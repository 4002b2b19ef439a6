"""The body behind a simulated visit: a latent illness, and what a triage nurse sees of it.

Every visit has one hidden condition and one hidden severity; together with the patient's reserve
they give the complaints, the vital signs, the nurse's acuity and the need of a bed. The figures are
round numbers of the size that a clinician expects: they make rows coherent, and prove nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from data.marts.complaint import COMPLAINTS
from data.marts.ed_visit import HISTORY

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

AGE_KNOTS = (0, 8, 25, 45, 65, 85)
CHILD, FLAT, YOUNG = (2.6, 1.8, 1.1, 0.9, 0.6, 0.4), (1.0,) * 6, (0.3, 1.0, 1.7, 1.0, 0.5, 0.25)
MIDDLE, OLDER = (0.05, 0.1, 0.6, 1, 1, 0.7), (0.1, 0.1, 0.4, 0.9, 1.9, 2.8)
OLD: tuple[float, ...] = (0, 0, 0.05, 0.4, 2.2, 4.5)


@dataclass(frozen=True)
class Condition:
    """What brings a patient in.

    ``share``: visits per thousand at age 45, times ``ages`` at ``AGE_KNOTS`` and ``raised_by`` for
    each such disease in the history. ``body``: change of temperature, pulse, breaths, systolic
    pressure and saturation for one unit of strain. ``course``: log-odds that a fit adult of median
    severity needs a bed, median severity, pain, weight of a lack of reserve, and what the complaint
    alone says to a nurse. ``winter``: swing over the year, negative in a summer condition. ``men``
    per woman. ``referral``: how much more the tertiary hospital sees of it than a county hospital,
    and a clinic less. ``inverse``: share that turns the first two signs (cold sepsis, slow
    arrhythmia). ``centre``: chance that a county hospital sends it on.
    """

    name: str
    share: float
    ages: tuple[float, ...]
    body: tuple[float, float, float, float, float]
    course: tuple[float, float, float, float, float]
    complaints: str
    winter: float = 0.0
    men: float = 1.0
    referral: float = 1.0
    inverse: float = 0.0
    centre: float = 0.03
    raised_by: str = ""


def weights(text: str) -> dict[str, float]:
    """``"cough 5 fever 2"`` as a dictionary."""
    words = text.split()
    return dict(zip(words[::2], map(float, words[1::2]), strict=True))


C = Condition
CONDITIONS = (
    C("cold", 62, CHILD, (0.6, 4, 0.8, 0, -0.2), (-6.5, 0.7, 3, 0.7, 0),
      "common_cold 5 cough 6 throat 5 fever 4 nose 2 ear 2 fatigue 1", winter=0.4, referral=0.8),
    C("influenza", 16, CHILD, (1.5, 6, 1.5, 0, -0.8), (-3.8, 0.7, 3, 1.3, 0.3),
      "fever 8 cough 5 common_cold 4 general_pain 2 unwell 2", winter=0.6),
    C("pneumonia", 22, OLDER, (1.1, 8, 4, -8, -3.2), (-0.6, 0.9, 3, 1.2, 0.8),
      "cough 7 fever 6 dyspnoea 6 pneumonia 2 chest_pain 1.5 unwell 1.5", winter=0.35,
      raised_by="copd 2.5 heart_failure 1.4 dementia 2"),
    C("copd_exacerbation", 1.2, OLDER, (0.2, 11, 5, 4, -3.6), (-0.4, 0.9, 3, 0.7, 1),
      "dyspnoea 8 cough 5 copd 3 wheezing 3 breathing_other 1", winter=0.3, raised_by="copd 40"),
    C("asthma_attack", 3, YOUNG, (0, 16, 5, 3, -2.6), (-2.6, 0.9, 3, 0.7, 0.9),
      "asthma 5 wheezing 5 dyspnoea 6 cough 3", winter=0.2, raised_by="asthma 14"),
    C("infarction", 11, OLDER, (0, 8, 2, -20, -1.2), (2.4, 0.9, 6, 0.7, 1.7),
      "chest_pain 9 dyspnoea 2.5 heartburn 1 syncope 0.7 nausea 1 arm 0.6", winter=0.1, men=1.5,
      referral=1.4, inverse=0.2, centre=0.5,
      raised_by="coronary_artery_disease 2.5 diabetes_type_2 1.4 hypertension 1.2"),
    C("chest_wall_pain", 44, MIDDLE, (0, 7, 1, 8, 0), (-4.2, 0.7, 5, 0.3, 1.2),
      "chest_pain 9 palpitations 1 anxiety 1 dyspnoea 1 heartburn 1.5"),
    C("heart_failure", 1.5, OLD, (0, 9, 5, 9, -3.2), (0.5, 0.9, 3, 0.7, 1),
      "dyspnoea 8 fluid_abnormality 4 heart_disease 2 fatigue 1.5 leg 1", referral=1.2,
      raised_by="heart_failure 22 chronic_kidney_disease 1.6"),
    C("arrhythmia", 9, OLDER, (0, 48, 2, -14, -0.4), (-1.6, 0.8, 1, 0.7, 1.2),
      "palpitations 7 dizziness 3 syncope 2 chest_pain 2 dyspnoea 1.5", inverse=0.25,
      raised_by="heart_failure 2 coronary_artery_disease 1.5"),
    C("hypertensive", 12, OLDER, (0, 4, 0.5, 46, 0), (-3.6, 0.7, 2, 0.7, 0.5),
      "hypertension 6 headache 4 dizziness 4 nosebleed 2", raised_by="hypertension 2"),
    C("faint", 14, (0.2, 0.7, 1.1, 1, 1.6, 2.4), (0, -6, 0, -12, 0), (-3, 0.7, 1, 1, 0.7),
      "syncope 8 dizziness 3 accident 1 general_weakness 1"),
    C("stroke", 10, OLD, (0.1, 3, 1, 24, -0.6), (2.6, 0.7, 1, 0.7, 1.8),
      "focal_weakness 6 speech 4 stroke 4 altered_consciousness 2 dizziness 1.5 numbness 2",
      referral=1.4, centre=0.4, raised_by="cerebrovascular_disease 2 hypertension 1.4"),
    C("seizure", 9, (2.5, 1.2, 1, 1, 0.9, 0.9), (0.4, 16, 2, 4, -1), (-1.4, 0.7, 1, 0.7, 1.3),
      "seizure 9 altered_consciousness 1.5 injury_head 0.7",
      raised_by="alcohol_misuse 3 cerebrovascular_disease 1.8"),
    C("headache", 30, YOUNG, (0, 2, 0, 5, 0), (-5, 0.7, 6, 0.7, 0),
      "headache 9 nausea 2 dizziness 1.5 eye 0.6 neck 0.8", men=0.6),
    C("gastroenteritis", 46, CHILD, (0.6, 10, 0.8, -7, 0), (-4.4, 0.7, 3, 1.3, 0),
      "vomiting 6 diarrhoea 6 abdominal_pain 4 nausea 3 fever 1.5", winter=-0.15),
    C("gi_bleed", 8, OLDER, (-0.1, 17, 2, -25, -0.3), (0.7, 0.9, 2, 0.7, 1.3),
      "melaena 7 haematemesis 4 syncope 1 abdominal_pain 1.5 general_weakness 1", men=1.3, centre=0.2,
      raised_by="alcohol_misuse 3 chronic_kidney_disease 1.5"),
    C("surgical_abdomen", 22, (0.3, 1, 1, 1, 1.2, 1.2), (0.7, 11, 2, -7, -0.4), (0.6, 0.9, 7, 0.7, 0.7),
      "abdominal_pain 9 vomiting 3 abdominal_distension 1.5 jaundice 1 fever 1 hernia 0.6"),
    C("belly_ache", 58, (0.7, 1.2, 1.3, 1, 0.8, 0.7), (0.1, 3, 0, 3, 0), (-4.2, 0.7, 5, 0.6, 0),
      "abdominal_pain 9 nausea 2 heartburn 2 constipation 1.5 appetite 0.5"),
    C("urinary_infection", 26, (0.5, 0.6, 1.1, 1, 1.5, 2.6), (0.9, 9, 1, -5, 0), (-3.4, 0.7, 3, 1.6, 0),
      "urinary_symptom 6 urinary_infection 3 flank_pain 3 fever 3 general_weakness 1",
      men=0.4),
    C("renal_colic", 17, MIDDLE, (0.1, 6, 1, 14, 0), (-3.6, 0.7, 8, 0.7, 0),
      "flank_pain 8 haematuria 2 abdominal_pain 3 vomiting 1.5", winter=-0.2, men=2),
    C("sepsis", 12, (0.4, 0.2, 0.3, 0.8, 2, 3.2), (1.6, 17, 5, -26, -1.8), (1.6, 1.1, 2, 1.2, 1.1),
      "fever 8 sepsis 3 altered_consciousness 2 general_weakness 3 unwell 2 dyspnoea 1.5",
      winter=0.1, inverse=0.18, centre=0.25,
      raised_by="cancer 2 diabetes_type_2 1.4 dementia 2 end_stage_renal_disease 2"),
    C("skin_infection", 28, FLAT, (0.6, 5, 0.4, 0, 0), (-3.6, 0.7, 5, 1, 0),
      "skin_infection 8 leg 2 skin_lesion 2 ankle_foot 1 fever 1", winter=-0.2,
      raised_by="diabetes_type_2 1.6 substance_misuse 1.8"),
    C("major_trauma", 8, YOUNG, (-0.2, 19, 4, -25, -1.4), (1.4, 0.9, 7, 0.7, 1.7),
      "road_accident 6 injury_multiple 5 injury_trunk 3 accident 3 fracture_trunk 2", winter=-0.25,
      men=2.2, referral=1.6, centre=0.5),
    C("fall", 9, (0.8, 0.4, 0.2, 0.6, 2.6, 7), (0, 4, 0.6, 6, -0.2), (-2.2, 0.7, 6, 1.3, 0.4),
      "accident 8 hip 3 fracture_trunk 2 injury_head 2 injury_arm 1.5 injury_leg 2", winter=0.1, men=0.6,
      raised_by="osteoporosis 1.6 dementia 2.2"),
    C("minor_injury", 104, YOUNG, (0, 2, 0, 4, 0), (-6.5, 0.7, 5, 0.8, 0),
      "sprain 5 contusion 4 injury_leg 4 injury_arm 4 hand 3 ankle_foot 4 fracture_limb 2 knee 2",
      winter=-0.25, men=1.3),
    C("laceration", 46, YOUNG, (0, 3, 0, 3, 0), (-6.5, 0.7, 4, 0.7, 0),
      "laceration_body 7 laceration_head 4 puncture 1.5 foreign_body 1.5 hand 1", winter=-0.2, men=1.8),
    C("head_injury", 20, (2, 1.6, 1, 0.9, 1.2, 2.2), (0, 3, 0, 6, 0), (-3.6, 0.7, 4, 0.9, 0.8),
      "injury_head 8 headache 2 vomiting 1 accident 2", winter=-0.15),
    C("burn_or_bite", 19, YOUNG, (0, 5, 0.3, 4, 0), (-5, 0.7, 5, 0.7, 0),
      "bite 6 burn 4 allergy 1 rash 1", winter=-0.5),
    C("intoxication", 22, (0, 0, 1.6, 1.1, 0.5, 0.2), (-0.5, 9, -1.4, -8, -1.2), (-3, 0.8, 1, 0.7, 0.6),
      "alcohol 7 drug_use 4 altered_consciousness 3 behaviour 1 injury_head 1", men=2,
      raised_by="alcohol_misuse 6 substance_misuse 5"),
    C("self_harm", 8, (0, 0.5, 1.9, 1, 0.5, 0.3), (-0.1, 13, 0, -6, -0.6), (-0.4, 0.7, 2, 0.7, 1.5),
      "self_harm 6 poisoning 5 depression 3 laceration_body 1", men=0.8,
      raised_by="depression 4 substance_misuse 2"),
    C("psychiatric", 27, (0, 0.4, 1.5, 1.1, 0.6, 0.5), (0, 13, 2.5, 7, 0), (-2.8, 0.8, 1, 0.1, 0.4),
      "anxiety 5 behaviour 3 psychosis 2.5 depression 3 sleep 1.5 palpitations 1.5",
      raised_by="depression 3.5 substance_misuse 1.6"),
    C("back_pain", 42, MIDDLE, (0, 4, 0.3, 6, 0), (-5, 0.7, 7, 0.5, 0),
      "low_back 6 back 5 neck 2 leg 2 hip 0.7"),
    C("glucose_crisis", 0.9, MIDDLE, (-0.1, 17, 5, -11, -0.2), (0.2, 0.9, 2, 0.7, 1),
      "diabetes 7 altered_consciousness 2 vomiting 2 general_weakness 2",
      raised_by="diabetes_type_1 28 diabetes_type_2 7 diabetes_unspecified 7"),
    C("kidney_trouble", 0.7, OLDER, (0, 3, 2, 13, -1), (0.2, 0.7, 1, 0.7, 0.6),
      "dialysis 4 kidney 4 abnormal_blood_test 3 fluid_abnormality 2 dyspnoea 2", referral=1.3,
      raised_by="end_stage_renal_disease 40 chronic_kidney_disease 5"),
    C("embolism", 5, OLDER, (0.1, 17, 4, -10, -2.8), (1.2, 0.9, 4, 0.7, 0.9),
      "dyspnoea 5 chest_pain 4 thrombosis 3 leg 3 syncope 1",
      raised_by="thromboembolism 6 cancer 3 obesity 1.4"),
    C("allergy", 32, YOUNG, (0.1, 9, 1.2, -5, -0.4), (-5, 0.7, 2, 0.7, 0),
      "rash 6 allergy 5 skin_lesion 3 face_symptom 1.5 adverse_drug 1", winter=-0.25),
    C("pelvic", 42, (0, 0.05, 2, 0.8, 0.1, 0.05), (0.1, 7, 0.5, -3, 0), (-3.6, 0.7, 5, 0.7, 0.4),
      "pregnancy 5 vaginal_bleeding 4 abdominal_pain 3 menstrual 2", men=0),
    C("ear_eye_tooth", 48, (1.4, 1.5, 1.2, 1, 0.7, 0.5), (0.2, 2, 0, 3, 0), (-6.5, 0.7, 5, 0.7, 0),
      "tooth 5 ear 4 eye 5 throat 1.5 mouth 1.5 nosebleed 1"),
    C("aftercare", 34, FLAT, (0, 1, 0, 2, 0), (-5, 0.5, 2, 0.6, 0),
      "follow_up 4 wound_care 4 medication 4 surgery_visit 1 examination 2 tube 1 complication 1"),
    C("cancer_trouble", 0.8, OLDER, (0.3, 10, 1.6, -8, -0.9), (0.4, 0.8, 5, 0.7, 0.6),
      "cancer 4 general_weakness 3 vomiting 2 anaemia 2 general_pain 2 fever 2", referral=1.6,
      raised_by="cancer 26"),
    C("failing_at_home", 7, OLD, (0.1, 4, 0.6, -5, -0.5), (-1.2, 0.7, 2, 1.1, 0.4),
      "general_weakness 7 fatigue 4 appetite 2 social 1 memory 1.5 unwell 2",
      raised_by="dementia 4 cerebrovascular_disease 1.6"),
    C("arrest", 1.4, OLD, (-0.4, 10, 4, -45, -9), (5, 1.2, 0, 0.7, 4),
      "cardiac_arrest 9 altered_consciousness 1", referral=1.2, inverse=0.5),
)  # fmt: skip

INDEX = {condition.name: index for index, condition in enumerate(CONDITIONS)}
HISTORY_INDEX = {column.name: index for index, column in enumerate(HISTORY)}
SEVERE = -1.0  # log-odds that a fit adult with it needs a bed
RESPIRATORY = ("cold", "influenza", "pneumonia", "copd_exacerbation", "asthma_attack")

# Prevalence at ages 10, 30, 50, 70 and 88, and how strongly it clusters with the other diseases of
# metabolism and vessels, and with the other burdens of a hard life; then what it costs in reserve,
# in units of 25 years past the age of 50.
PREVALENCE: dict[str, tuple[tuple[float, ...], float, float, float]] = {
    "alcohol_misuse": ((0, 0.04, 0.06, 0.03, 0.01), 0, 1.0, 0.2),
    "dementia": ((0, 0, 0.002, 0.05, 0.24), 0, 0, 0.6),
    "asthma": ((0.09, 0.08, 0.07, 0.06, 0.05), 0, 0.2, 0),
    "cancer": ((0.002, 0.008, 0.04, 0.11, 0.13), 0, 0, 0.5),
    "cerebrovascular_disease": ((0, 0.003, 0.03, 0.11, 0.18), 0.5, 0, 0.4),
    "chronic_kidney_disease": ((0.001, 0.008, 0.03, 0.10, 0.20), 0.6, 0, 0.4),
    "copd": ((0, 0.005, 0.05, 0.13, 0.14), 0, 0.6, 0.5),
    "heart_failure": ((0, 0.002, 0.02, 0.09, 0.20), 0.6, 0, 0.7),
    "coronary_artery_disease": ((0, 0.004, 0.06, 0.20, 0.27), 0.6, 0, 0.3),
    "depression": ((0.01, 0.09, 0.11, 0.09, 0.09), 0, 0.7, 0),
    "diabetes_type_1": ((0.003, 0.007, 0.007, 0.005, 0.003), 0, 0, 0.3),
    "diabetes_type_2": ((0, 0.015, 0.10, 0.20, 0.18), 0.7, 0, 0.2),
    "diabetes_unspecified": ((0, 0.005, 0.02, 0.03, 0.03), 0.6, 0, 0.2),
    "end_stage_renal_disease": ((0, 0.002, 0.009, 0.016, 0.012), 0.7, 0, 0.8),
    "thromboembolism": ((0, 0.007, 0.02, 0.04, 0.05), 0.2, 0, 0),
    "hiv": ((0, 0.005, 0.007, 0.002, 0), 0, 0.8, 0.3),
    "hyperlipidaemia": ((0, 0.03, 0.18, 0.36, 0.34), 0.6, 0, 0),
    "hypertension": ((0.002, 0.06, 0.31, 0.60, 0.70), 0.6, 0, 0),
    "obesity": ((0.03, 0.09, 0.12, 0.09, 0.03), 0.6, 0, 0),
    "sleep_apnoea": ((0.005, 0.015, 0.05, 0.06, 0.04), 0.6, 0, 0),
    "osteoporosis": ((0, 0, 0.015, 0.09, 0.17), 0, 0, 0),
    "substance_misuse": ((0.002, 0.06, 0.045, 0.012, 0.003), 0, 1.0, 0),
}


@dataclass(frozen=True, kw_only=True)
class People:
    """One row a person (or a visit's person). ``history`` is rows x the contract's history."""

    age: Floats
    male: Flags
    history: Flags
    blunted: Flags
    nursing_home: Flags
    heart: Floats
    pressure: Floats

    def has(self, name: str) -> Flags:
        return np.asarray(self.history[:, HISTORY_INDEX[name]])

    @property
    def frailty(self) -> Floats:
        """Lack of reserve: 0 in a healthy adult of 50, about 1.5 at 80 with heart failure."""
        organs = self.history @ np.array([PREVALENCE[column.name][3] for column in HISTORY])
        return np.asarray(np.clip((self.age - 50) / 25, 0, 2) + np.minimum(organs, 1.8))


def draw_people(rng: np.random.Generator, age: Floats, often: Flags) -> People:
    """People of these ages; those who come ``often`` carry more of a hard life's diseases."""
    n = len(age)
    metabolic, social = rng.standard_normal((2, n))
    social = social + 1.2 * often
    luck = rng.random((n, len(HISTORY)))
    history = np.zeros((n, len(HISTORY)), dtype=bool)
    for index, column in enumerate(HISTORY):
        prevalence, with_metabolic, with_social, _ = PREVALENCE[column.name]
        load = with_metabolic * metabolic + with_social * social
        mean_one = (with_metabolic**2 + with_social**2) / 2
        chance = np.interp(age, (10, 30, 50, 70, 88), prevalence) * np.exp(load - mean_one)
        history[:, index] = luck[:, index] < np.minimum(chance, 0.95)
    male, treated, home = rng.random((3, n))
    named = ("heart_failure", "coronary_artery_disease", "hypertension", "dementia")
    failing, coronary, tense, confused = (history[:, HISTORY_INDEX[name]] for name in named)
    return People(
        age=age,
        male=male < np.where(age < 15, 0.53, 0.46),
        history=history,
        # Beta-blockers: most of those with a diseased heart, some of the merely hypertensive.
        blunted=treated < np.where(failing | coronary, 0.65, 0.2 * tense),
        nursing_home=home < 0.5 * confused + 0.12 * np.clip((age - 75) / 15, 0, 1),
        heart=rng.standard_normal(n),
        pressure=rng.standard_normal(n),
    )


@dataclass(frozen=True)
class CaseMix:
    """What shifts the mix of conditions beside the person: season, referral, a surge.

    ``severe`` multiplies the conditions that are worse than ``SEVERE``.
    """

    month: Ints
    referral: Floats
    lungs: Floats
    elders: Floats
    severe: Floats


def draw_condition(luck: Floats, people: People, mix: CaseMix) -> Ints:
    """The latent condition of each visit: index into ``CONDITIONS``."""
    ages = np.arange(121)
    by_age = np.array([c.share * np.interp(ages, AGE_KNOTS, c.ages) for c in CONDITIONS]).T
    men = np.array([c.men for c in CONDITIONS])
    by_sex = np.stack([by_age * 2 / (1 + men), by_age * 2 * men / (1 + men)]).astype(np.float32)
    # The swing peaks in mid-January: respiratory viruses in winter, injuries and bites in summer.
    swing = np.cos(2 * np.pi * np.arange(12) / 12)
    winter = 1 + np.outer(swing, [c.winter for c in CONDITIONS]).astype(np.float32)
    share = by_sex[people.male.astype(int), people.age.astype(int)] * winter[mix.month]
    for index, condition in enumerate(CONDITIONS):
        share[:, index] *= condition.referral**mix.referral
        if condition.name in RESPIRATORY:
            share[:, index] *= mix.lungs
        if condition.ages is OLD:
            share[:, index] *= mix.elders
        if condition.course[0] > SEVERE:
            share[:, index] *= mix.severe
        for disease, factor in weights(condition.raised_by).items():
            share[people.has(disease), index] *= factor
    total = np.cumsum(share, axis=1)
    picked = (total < (luck * total[:, -1])[:, None]).sum(axis=1)
    return np.asarray(np.minimum(picked, len(CONDITIONS) - 1))


@dataclass(frozen=True)
class Illness:
    """The latent state. ``strain`` is severity as this body bears it."""

    condition: Ints
    excess: Floats
    strain: Floats
    gravity: Floats
    pain: Floats
    frail: Floats
    alarm: Floats

    def is_a(self, *names: str) -> Flags:
        return np.isin(self.condition, [INDEX[name] for name in names])


def draw_illness(condition: Ints, worse: Floats, people: People) -> Illness:
    """Severity is log-normal about the condition's level; a lack of reserve multiplies its effect."""
    excess = np.clip(0.5 * worse, -1.4, 1.4)
    gravity, level, pain, frail, alarm = np.array([c.course for c in CONDITIONS])[condition].T
    strain = np.minimum(level * np.exp(excess) * (0.85 + 0.3 * people.frailty), 4.5)
    return Illness(condition, excess, strain, gravity, pain, frail, alarm)


Vitals = dict[str, Floats]


def draw_vitals(rng: np.random.Generator, people: People, ill: Illness, hour: Ints) -> Vitals:
    """Vital signs as they truly are, before anybody rounds, skips or misreads them."""
    n = len(hour)
    heat, beat, breath, press, oxygen, other = rng.standard_normal((6, n))
    d_heat, d_beat, d_breath, d_press, d_oxygen = np.array([c.body for c in CONDITIONS])[ill.condition].T
    age, strain = people.age, ill.strain
    # Old age turns septic fever to cold and hides its height; a sick sinus makes a pulse slow.
    turned = rng.random(n) < np.array([c.inverse for c in CONDITIONS])[ill.condition] * (
        0.8 + 0.4 * people.frailty
    )
    sign = np.where(turned, -0.7, 1.0)
    fever = d_heat * np.minimum(strain, 2.2) * sign * np.where((age > 70) & ~turned, 0.7, 1.0)
    temperature = 36.7 + 0.15 * np.sin((hour - 10) / 24 * 2 * np.pi) + fever + 0.28 * heat

    lungs = people.has("copd")
    saturation = np.interp(age, (20, 60, 90), (98.2, 97.3, 96.2)) - 3.2 * lungs
    saturation = saturation + d_oxygen * strain**1.3 * (1 + 0.15 * oxygen) + 0.9 * oxygen
    saturation = np.clip(
        np.where(saturation > 99.5, 99.5 + 0.3 * (saturation - 99.5), saturation), 41, 100
    )

    # A beta-blocker lowers the resting pulse and hides the answer to fever, pain and shock.
    rest = np.interp(age, (0, 2, 6, 12, 18, 60, 90), (138, 118, 100, 86, 80, 77, 76)) + 7 * people.heart
    answer = (
        d_beat * strain * sign
        + 8 * np.maximum(temperature - 37.2, 0)
        + 0.9 * np.maximum(94 - saturation, 0)
    )
    pulse = rest - 8 * people.blunted + answer * np.where(people.blunted, 0.45, 1.0) + 8 * beat

    rate = np.interp(age, (0, 2, 6, 12, 18, 90), (36, 27, 22, 19, 17, 18)) + lungs + d_breath * strain
    rate = (
        rate
        + 0.5 * np.maximum(93 - saturation, 0)
        + 0.8 * np.maximum(temperature - 37.8, 0)
        + 1.6 * breath
    )

    # Compensated shock keeps its pressure; only beyond a strain of 0.8 does it fall, and then fast.
    usual = np.interp(age, (0, 6, 18, 40, 60, 90), (84, 100, 117, 124, 131, 136)) + 8 * people.pressure
    usual = usual + 12 * people.has("hypertension")
    shock = np.where(d_press < 0, 1.5 * np.maximum(strain - 0.8, 0), strain)
    systolic = usual + d_press * shock + 10 * press
    diastolic = 0.5 * systolic + 14 - 0.1 * np.maximum(age - 60, 0) + 6 * other
    return {
        "temperature": np.clip(temperature, 26, 43),
        "heart_rate": np.clip(pulse, 24, 250),
        "respiratory_rate": np.clip(rate, 5, 70),
        "sbp": np.clip(systolic, 42, 280),
        "dbp": np.clip(np.minimum(diastolic, systolic - 12), 16, 180),
        "spo2": saturation,
    }


def draw_urgency(rng: np.random.Generator, ill: Illness, vitals: Vitals, age: Floats) -> Floats:
    """What the nurse makes of it: the complaint's alarm, the vital signs, a glance at the patient."""
    adult = age >= 15
    odd = 0.6 * ((vitals["spo2"] < 93) + (adult & (vitals["sbp"] < 95)) + (vitals["temperature"] > 38.8))
    odd = odd + 0.5 * adult * ((vitals["heart_rate"] > 115) + (vitals["respiratory_rate"] > 24.0))
    return ill.alarm + odd + 0.6 * ill.excess + 0.7 * rng.standard_normal(len(age))


def draw_pain(rng: np.random.Generator, ill: Illness) -> Floats:
    """0 to 10. Who has a painless condition says 0; pain follows severity only loosely."""
    said = ill.pain * (1 + 0.5 * ill.excess) + 2.4 * rng.standard_normal(len(ill.strain))
    return np.clip(np.rint(said), 0, 10)


def draw_complaints(rng: np.random.Generator, ill: Illness) -> Ints:
    """Five distinct complaints a row in the order told (index into ``COMPLAINTS``, -1 is none)."""
    n = len(ill.strain)
    codes = {complaint.id: index for index, complaint in enumerate(COMPLAINTS)}
    widest = max(len(weights(c.complaints)) for c in CONDITIONS)
    # An exponential race draws without replacement, in proportion to the weights.
    race = -np.log(1 - rng.random((n, widest)))
    told = np.full((n, 5), -1, dtype=np.int64)
    for index, condition in enumerate(CONDITIONS):
        rows = np.flatnonzero(ill.condition == index)
        likely = weights(condition.complaints)
        order = np.argsort(race[rows, : len(likely)] / list(likely.values()), axis=1)[:, :5]
        told[rows, : order.shape[1]] = np.array([codes[name] for name in likely])[order]
    count = 1 + (rng.random((n, 4)) < np.array((0.52, 0.3, 0.14, 0.06))).cumprod(axis=1).sum(axis=1)
    told[np.arange(5) >= count[:, None]] = -1
    return told
