"""Every field that some document asks for, and who or what answers it.

Source A is filled from the evidence. P is pre-filled from it, and a person confirms or replaces it. H is
a person's alone. A text in the file beside the spec (``models/catalog/<model>.toml``) answers P and H;
the ids of those are its keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from training.documents import facts, results, rows, upkeep
from training.documents.bundle import Bundle
from training.documents.field import Field, Source

DEVELOPER = "the developer"
CLINICAL = "the clinical lead"
SAFETY = "the clinical safety officer"
HOSPITAL = "the hospital that deploys it"
VALIDATOR = "whoever validates it on other data"

Fill = Callable[[Bundle], str]


@dataclass(frozen=True, kw_only=True)
class Question:
    """One field. ``fill`` answers it from the evidence; ``who`` is the person whose it is."""

    id: str
    title: str
    source: Source
    anchor: str
    fill: Fill | None = None
    who: str | None = None

    @property
    def asked(self) -> bool:
        """Whether the file beside the spec may answer it: not what a person said in the spec itself."""
        return self.who is not None and not (self.source == "H" and self.fill)

    def answer(self, b: Bundle) -> Field:
        """The field: what a person wrote, else what the evidence says, else nothing."""
        written = b.people.get(self.id) if self.asked else None
        filled = self.fill(b) if self.fill else None
        return Field(
            id=self.id,
            title=self.title,
            source="H" if written else self.source,
            value=written or filled or None,
            who=self.who,
            anchor=self.anchor,
        )


def _a(name: str, title: str, anchor: str, fill: Fill) -> Question:
    return Question(id=name, title=title, source="A", anchor=anchor, fill=fill)


def _p(name: str, title: str, anchor: str, fill: Fill, who: str) -> Question:
    return Question(id=name, title=title, source="P", anchor=anchor, fill=fill, who=who)


def _h(name: str, title: str, who: str, anchor: str = "people") -> Question:
    return Question(id=name, title=title, source="H", anchor=anchor, who=who)


def _external(b: Bundle, figures: Fill) -> str:
    return f"No rows of another source. Within the same: {figures(b)}"


def _objectives(b: Bundle) -> str:
    return (
        f"To develop and to evaluate, on rows never learned from, a model of “{b.spec.outcome.label.en}”"
        f" {b.spec.outcome.horizon.en}, and to hold it against what could be used instead."
    )


QUESTIONS: tuple[Question, ...] = (
    # What it is
    _a("name", "Name", "top", facts.name),
    _a("version", "Version", "top", facts.version),
    _a("stage", "Stage of release", "top", facts.stage),
    _a("release_date", "Date of release", "top", facts.release_date),
    _a("summary", "Summary", "top", facts.summary),
    _a("keywords", "Keywords", "top", facts.keywords),
    _h("developer", "Developer", DEVELOPER),
    _h("contact", "Contact", DEVELOPER),
    _h("funding", "Funding", DEVELOPER),
    _h("conflicts", "Conflicts of interest", DEVELOPER),
    _h("availability", "Where it is available", DEVELOPER),
    _h("ehr", "Electronic health records it works with, one a line", HOSPITAL),
    _h("regulatory_approval", "Regulatory approval", DEVELOPER),
    # What it is for
    Question(
        id="intended_use",
        title="Intended use",
        source="H",
        anchor="use",
        fill=lambda b: b.spec.intended_use.en,
        who=CLINICAL,
    ),
    _h("intended_population", "Intended population", CLINICAL, "use"),
    _h("intended_users", "Intended users", CLINICAL, "use"),
    _h("decision_role", "Role in the decision", CLINICAL, "use"),
    _p("how_to_use", "How to use it", "bands", facts.how_to_use, CLINICAL),
    _p("output_value", "What the output says", "bands", facts.output_value, DEVELOPER),
    _a("output_type", "Type of output", "bands", facts.output_type),
    _a("thresholds", "Thresholds and bands", "bands", facts.thresholds),
    _p("out_of_scope", "What it must not be used for", "cautions", facts.out_of_scope, CLINICAL),
    _p("known_risks", "Known risks and limitations", "cautions", results.known_risks, CLINICAL),
    _p("known_biases", "Known biases and ethical questions", "groups", results.known_biases, CLINICAL),
    _h("clinical_risk", "Clinical risk level", SAFETY, "cautions"),
    # Outcome and inputs
    _a("outcome", "Outcome and horizon", "outcome", facts.outcome),
    _h("outcome_rationale", "Why this outcome and horizon", CLINICAL, "outcome"),
    _h("outcome_assessment", "Who assesses the outcome, and blind to what", HOSPITAL, "outcome"),
    _a("inputs", "Inputs", "inputs", facts.inputs),
    _a("input_types", "Types of input and output", "inputs", facts.input_types),
    _a("personal_inputs", "Personal attributes among the inputs", "inputs", rows.personal_inputs),
    _h("input_choice", "Why these inputs", DEVELOPER, "inputs"),
    _h("input_assessment", "Who assesses inputs that are a judgement", HOSPITAL, "inputs"),
    _a("handling", "Poor or missing inputs", "missing", lambda b: " ".join(facts.handling(b))),
    _p("interaction", "What users do with the inputs", "missing", facts.interaction, HOSPITAL),
    # The rows
    _a("cohort", "Inclusion and exclusion", "flow", rows.cohort),
    _a("flow", "Flow of rows", "flow", rows.flow_text),
    _a("source", "Source of the data", "data", rows.source),
    _a("dates", "Dates", "data", rows.dates),
    _a("partition", "Rows to learn from, tune and test", "data", rows.partition),
    _a("sizes", "Rows and events", "data", rows.sizes),
    _a("centres", "Number of sites", "sites", rows.centres),
    _h("setting", "Setting and location of the sites", DEVELOPER, "data"),
    _h("treatments", "Treatments in the course", CLINICAL, "data"),
    _a("preparation", "Checks of the data", "data", rows.preparation),
    _a("missing", "Missing data", "inputs", rows.missing),
    _a("development_groups", "Who is in the development data", "groups", rows.development_groups),
    _a("test_groups", "Who is in the test data", "groups", rows.tested_groups),
    _p("relevance", "Relevance to the setting", "data", rows.relevance, HOSPITAL),
    _h("sample_size", "Why so many rows are enough", DEVELOPER, "data"),
    _a("comparison", "Development and test data compared", "sets", results.comparison_of_data),
    # How it is made
    _a("model_type", "Type of model", "model", facts.model_type),
    _a("predictors", "How inputs enter", "model", facts.predictors),
    _a("calibration", "Calibration and sites", "model", facts.calibration),
    _a("imbalance", "Rare outcomes", "model", facts.imbalance),
    _a("calculation", "How a risk is computed", "model", facts.calculation),
    _a("model_object", "The full model", "model", facts.model_object),
    _a("measures", "Measures and comparators", "performance", facts.measures),
    _h("fairness_approach", "Approach to fairness", DEVELOPER, "groups"),
    _p("bias_management", "How bias is managed", "groups", results.bias_management, DEVELOPER),
    # How good it is
    _a("validity", "Performance", "performance", results.validity),
    _a("fairness", "Performance by group", "groups", results.fairness),
    _a("sites", "Performance by site", "sites", results.sites),
    _a("benefit", "Net benefit", "benefit", results.benefit),
    _a("sets", "Coverage of prediction sets", "sets", results.sets),
    _a("test_type", "Type of test", "performance", upkeep.kind_of_test),
    _a("testing_data", "Test data", "data", rows.testing_data),
    _p("validation_process", "Validation", "data", upkeep.validation_process, DEVELOPER),
    _a("external_source", "Source of external data", "data", rows.external_source),
    _a("external_groups", "Who is in the external data", "groups", rows.external_groups),
    _h("external_testers", "Who tested it on external data", VALIDATOR),
    _a("external_validity", "Validity on external data", "sites", lambda b: _external(b, results.sites)),
    _a(
        "external_fairness",
        "Fairness on external data",
        "groups",
        lambda b: _external(b, results.judged),
    ),
    _h("outcome_references", "References on its effect on outcomes", DEVELOPER),
    _p("usefulness_goal", "What it must reach: usefulness", "gate", upkeep.usefulness_goal, CLINICAL),
    _p("fairness_goal", "What it must reach: fairness", "gate", upkeep.fairness_goal, CLINICAL),
    _p("safety_goal", "What it must reach: safety", "gate", upkeep.safety_goal, CLINICAL),
    _h("interpretation", "What the figures mean", CLINICAL),
    _h("interpretation_fairness", "What the figures by group mean", CLINICAL),
    _h("interpretation_safety", "What the figures mean for safety", SAFETY),
    # How it is kept
    _a("monitoring", "Monitoring of validity", "monitoring", upkeep.monitoring),
    _a("local_validity", "Validity in local data", "monitoring", upkeep.local_validity),
    _a("monitoring_fairness", "Monitoring of fairness", "monitoring", upkeep.monitoring_fairness),
    _a("local_fairness", "Fairness in local data", "monitoring", upkeep.local_fairness),
    _a("updating", "Updating", "monitoring", upkeep.updating),
    _p("correction", "Correcting", "monitoring", upkeep.correction, HOSPITAL),
    # What reports of a study add
    _h("background", "Clinical context, and models that exist", CLINICAL),
    _h("inequalities", "Known inequalities in health", CLINICAL),
    _p("objectives", "Objectives", "use", _objectives, DEVELOPER),
    _h("ethics", "Ethical approval and consent", DEVELOPER),
    _h("protocol", "Protocol", DEVELOPER),
    _h("registration", "Registration of the study", DEVELOPER),
    _h("data_sharing", "Sharing of data", DEVELOPER),
    _h("code_sharing", "Sharing of code", DEVELOPER),
    _h("involvement", "Involvement of patients and the public", DEVELOPER),
    _h("stakeholders", "Who was consulted", DEVELOPER),
    _h("next_steps", "Next steps, and where else it may serve", CLINICAL),
    # What the model card of the coalition adds
    _a("transparency", "Transparency", "bands", facts.transparency),
    _a("third_party", "Data and software of others", "data", facts.third_party),
    _h("security", "Security", HOSPITAL),
    _h("evaluation_references", "References of the evaluation", DEVELOPER),
    _h("clinical_trial", "Clinical trial", DEVELOPER),
    _h("publications", "Peer-reviewed publications", DEVELOPER),
    _h("reimbursement", "Reimbursement", DEVELOPER),
    _h("consent", "Consent of patients, or what they are told", HOSPITAL),
    _h("bibliography", "Bibliography, as BibTeX", DEVELOPER),
)
KEYS = tuple(question.id for question in QUESTIONS if question.asked)
"""What the file beside a spec may answer."""


def answers(b: Bundle) -> dict[str, Field]:
    """Id -> field, in the order above."""
    return {question.id: question.answer(b) for question in QUESTIONS}
