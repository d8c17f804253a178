"""The whole model: one backbone, its experts, its tasks; made, used, saved and opened again."""
