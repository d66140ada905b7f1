"""Files in ComfyUI's own folders: models, saved artefacts, prompt decks."""
