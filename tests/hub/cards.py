"""The Hub's check of a card's metadata: POST /api/validate-yaml."""

import re

import yaml
from huggingface_hub.repocard_data import model_index_to_eval_results

LICENCES = {"apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "llama3.1", "gemma", "other", "unknown"}
REPO = re.compile(r"[\w][\w.-]{0,95}(/[\w][\w.-]{0,95})?")
TASKS = {"image-classification", "text-classification", "text-generation"}


def card_errors(content: str) -> list[str]:
    """Every reason why the Hub would refuse this README.md."""
    match = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    if match is None:
        return ["the card has no metadata"]
    try:
        card = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        return [f"the metadata is no YAML: {error}"]
    if not isinstance(card, dict):
        return ["the metadata is no mapping"]
    return [message for message, wrong in _checks(card) if wrong] + _model_index_errors(card)


def _checks(card: dict) -> list[tuple[str, bool]]:
    bases = card.get("base_model", [])
    bases = [bases] if isinstance(bases, str) else bases
    tags, datasets = card.get("tags", []), card.get("datasets", [])
    return [
        ('"license" must be one of the known ones', card.get("license", "mit") not in LICENCES),
        ('"license_name" is needed', card.get("license") == "other" and not card.get("license_name")),
        ('"license_name" has spaces', " " in str(card.get("license_name", ""))),
        ('"base_model" must be ids of models', not all(REPO.fullmatch(base) for base in bases)),
        ('"tags" must be texts', not all(isinstance(tag, str) and len(tag) <= 120 for tag in tags)),
        ('"datasets" must be ids of datasets', not all(REPO.fullmatch(name) for name in datasets)),
        ('"pipeline_tag" is unknown', card.get("pipeline_tag", "text-generation") not in TASKS),
    ]


def _model_index_errors(card: dict) -> list[str]:
    if "model-index" not in card:
        return []
    try:
        _, results = model_index_to_eval_results(card["model-index"])
    except (KeyError, TypeError, ValueError) as error:
        return [f'"model-index" misses {error}']
    bad = [
        r for r in results if not isinstance(r.metric_value, (int, float)) or not r.dataset_type or not r.task_type
    ]
    return [f'"model-index" has an incomplete result: {r}' for r in bad]
