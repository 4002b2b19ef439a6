"""The TRIPOD+AI checklist: what a report of a prediction model must say, and where it is said.

Source: Collins et al. 2024, BMJ 385:e078378. The short titles are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from training.documents.field import Field

Item = tuple[str, str, tuple[str, ...]]
"""Number, short title, ids of the fields that answer it."""

ITEMS: tuple[Item, ...] = (
    ("1", "Title: what is predicted, in whom", ("name",)),
    ("2", "Abstract", ("summary",)),
    ("3a", "Clinical context, and models that exist", ("background",)),
    (
        "3b",
        "Target population, purpose in care, users",
        ("intended_population", "intended_use", "intended_users"),
    ),
    ("3c", "Known inequalities in health", ("inequalities",)),
    ("4", "Objectives", ("objectives",)),
    ("5a", "Sources of the data", ("source", "relevance")),
    ("5b", "Dates of the data", ("dates",)),
    ("6a", "Setting, number and location of sites", ("centres", "setting")),
    ("6b", "Eligibility", ("cohort",)),
    ("6c", "Treatments received", ("treatments",)),
    ("7", "Preparation and checks of the data", ("preparation",)),
    ("8a", "Outcome and horizon", ("outcome", "outcome_rationale")),
    ("8b", "Who assessed the outcome", ("outcome_assessment",)),
    ("8c", "Blinding of its assessment", ("outcome_assessment",)),
    ("9a", "Choice of the predictors", ("input_choice",)),
    ("9b", "Definition of the predictors", ("inputs",)),
    ("9c", "Who assessed the predictors", ("input_assessment",)),
    ("10", "Sample size", ("sizes", "sample_size")),
    ("11", "Missing data", ("missing",)),
    ("12a", "Use and partition of the data", ("partition",)),
    ("12b", "How predictors were handled", ("predictors",)),
    ("12c", "Type of model and how it was built", ("model_type",)),
    ("12d", "Heterogeneity between sites", ("calibration",)),
    ("12e", "Measures and plots of performance, comparison of models", ("measures",)),
    ("12f", "Updating after evaluation", ("updating",)),
    ("12g", "How predictions were calculated", ("calculation",)),
    ("13", "Class imbalance", ("imbalance",)),
    ("14", "Approaches to fairness", ("fairness_approach", "bias_management")),
    ("15", "Output, and how thresholds were chosen", ("output_type", "thresholds")),
    ("16", "Differences between development and evaluation", ("comparison",)),
    ("17", "Ethical approval", ("ethics",)),
    ("18a", "Funding", ("funding",)),
    ("18b", "Conflicts of interest", ("conflicts",)),
    ("18c", "Protocol", ("protocol",)),
    ("18d", "Registration", ("registration",)),
    ("18e", "Sharing of data", ("data_sharing",)),
    ("18f", "Sharing of code", ("code_sharing",)),
    ("19", "Involvement of patients and the public", ("involvement",)),
    ("20a", "Flow of participants", ("flow",)),
    ("20b", "Characteristics of participants", ("development_groups", "test_groups", "missing")),
    ("20c", "Development and evaluation data compared", ("comparison",)),
    ("21", "Participants and events in each analysis", ("sizes",)),
    ("22", "The full model", ("model_object",)),
    ("23a", "Performance with intervals, by subgroup", ("validity", "benefit", "fairness")),
    ("23b", "Heterogeneity of performance between sites", ("sites",)),
    ("24", "Results of updating", ("calibration",)),
    ("25", "Interpretation", ("interpretation", "interpretation_fairness")),
    ("26", "Limitations", ("known_risks",)),
    ("27a", "Poor or missing inputs in use", ("handling",)),
    ("27b", "What users must do and know", ("interaction",)),
    ("27c", "Next steps and generalisability", ("next_steps",)),
)


def answered(fields: Mapping[str, Field]) -> list[tuple[str, str, list[Field]]]:
    """Each item's number and title, with the fields that answer it."""
    return [(item, title, [fields[name] for name in asked]) for item, title, asked in ITEMS]


def checklist(fields: Mapping[str, Field]) -> list[dict[str, Any]]:
    """The same as JSON: of each field its source, value, who and section of the page."""
    return [
        {
            "item": item,
            "title": title,
            "fields": [{**asdict(field), "state": field.state} for field in found],
        }
        for item, title, found in answered(fields)
    ]
