"""A model and data -> numbers: retrieval, zero-shot classification, linear probes, captions and answers."""

from siglip.evaluation.answers import normalise_answer, vqa_accuracy
from siglip.evaluation.captions import CaptionScores, ptb_tokens, score_captions, score_tokens
from siglip.evaluation.classes import evaluate_classifier, match_labels
from siglip.evaluation.many import Task, evaluate_models
from siglip.evaluation.pictures import Pictures, embed_source
from siglip.evaluation.probe import k_shot, linear_probe
from siglip.evaluation.result import Answer, ClassResult, Mistake, Result
from siglip.evaluation.retrieval import evaluate_retrieval
from siglip.evaluation.texts import Texts, Written, evaluate_answers, evaluate_captions, official_results, write_texts
from siglip.evaluation.zero_shot import benchmark_classes, benchmark_templates, evaluate_zero_shot

__all__ = [
    "Answer",
    "CaptionScores",
    "ClassResult",
    "Mistake",
    "Pictures",
    "Result",
    "Task",
    "Texts",
    "Written",
    "benchmark_classes",
    "benchmark_templates",
    "embed_source",
    "evaluate_answers",
    "evaluate_captions",
    "evaluate_classifier",
    "evaluate_models",
    "evaluate_retrieval",
    "evaluate_zero_shot",
    "k_shot",
    "linear_probe",
    "match_labels",
    "normalise_answer",
    "official_results",
    "ptb_tokens",
    "score_captions",
    "score_tokens",
    "vqa_accuracy",
    "write_texts",
]
