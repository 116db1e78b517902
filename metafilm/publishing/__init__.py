"""A learner for others: a folder in the Hugging Face Hub's layout with its model card, and on the Hub."""

from metafilm.publishing.card import card
from metafilm.publishing.folder import Records, push_to_hub, save_pretrained

__all__ = ["Records", "card", "push_to_hub", "save_pretrained"]
