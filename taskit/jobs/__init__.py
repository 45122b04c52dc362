"""Runs on machines that Hugging Face rents out (Jobs): priced, packed, started, followed and stopped from here."""
